# CDCP: DeiT-Base with 40 % fewer MACs by pruned channels.
_base_ = './dense_deit_b_in1k.py'

model = dict(backbone=dict(compactors=True))
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.4,
        num_classes=1000,
        warmup_epochs=30,
        settle_epochs=100,
        rules=dict(divisor=8),
    ),
]
