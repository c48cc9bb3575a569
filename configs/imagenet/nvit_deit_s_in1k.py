# NViT without its latency, SAViT's first order: DeiT-Small loses channels by
# how much the loss changes with them; as many MACs as CDCP's.
_base_ = './cdcp_deit_s_in1k.py'

custom_hooks = [
    dict(
        type='PruningHook',
        target=0.381,
        criterion='taylor',
        num_classes=1000,
        warmup_epochs=30,
        settle_epochs=100,
        rules=dict(divisor=8),
    ),
]
