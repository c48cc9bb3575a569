# CDCP from the dense DINOv2: half of the MACs go by channels alone. In a run
# this short masked columns are helped to vanish (shrink).
_base_ = './dense_dinov2_s_tiny_imagenet_20.py'
model = dict(backbone=dict(compactors=True))
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.5,
        num_classes=20,
        warmup=20,
        increment=0.02,
        interval=6,
        settle=100,
        shrink=0.03,
        report_interval=100,
    ),
]
