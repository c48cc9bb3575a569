# CDCP: half of the MACs by pruned channels alone.
#
# In a run this short masked columns have to be helped to vanish (shrink).
_base_ = './dense_vit_micro_tiny_imagenet_20.py'

model = dict(backbone=dict(compactors=True))
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.5,
        num_classes=20,
        warmup_epochs=0.5,
        increment=0.01,
        interval=5,
        settle_epochs=3,
        shrink=0.02,
        report_interval=70,
    ),
]
