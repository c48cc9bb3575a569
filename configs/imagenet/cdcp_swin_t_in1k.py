# CDCP: Swin-Tiny with 26.7 % fewer MACs by pruned channels.
_base_ = './dense_swin_t_in1k.py'

model = dict(backbone=dict(compactors=True))
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.267,
        num_classes=1000,
        warmup_epochs=30,
        settle_epochs=100,
        rules=dict(divisor=8),
    ),
]
