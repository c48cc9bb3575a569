# CDCP: half of the MACs by pruned channels alone.
#
# Runs this short need masked columns to vanish within some hundred steps: a
# larger learning rate and a shorter memory for the compactors.
_base_ = './dense_vit_micro_tiny_imagenet_20.py'

model = dict(backbone=dict(compactors=True))
optim_wrapper = dict(
    paramwise_cfg=dict(compactors=dict(lr=2e-2, betas=(0.9, 0.999)))
)
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.5,
        num_classes=20,
        warmup_epochs=1,
        increment=0.025,
        interval=10,
        settle_epochs=4,
        clear_moments=True,
        report_interval=70,
    ),
]
