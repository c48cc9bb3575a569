# S²ViTE's static baseline: DeiT-Small loses whole heads and hidden channels by
# the size of their weights, while it trains; as many MACs as CDCP's.
_base_ = './cdcp_deit_s_in1k.py'

custom_hooks = [
    dict(
        type='PruningHook',
        target=0.381,
        criterion='magnitude',
        num_classes=1000,
        warmup_epochs=30,
        settle_epochs=100,
        rules=dict(divisor=8, whole_heads=True),
    ),
]
