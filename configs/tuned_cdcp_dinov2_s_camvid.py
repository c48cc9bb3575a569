# CDCP in the task itself: half of the MACs go by channels alone, while the
# segmentor learns. In a run this short masked columns are helped to vanish.
_base_ = './tuned_dense_dinov2_s_camvid.py'
model = dict(backbone=dict(compactors=True))
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.5,
        img_size=_base_.crop_size,
        warmup=24,
        increment=0.02,
        interval=5,
        settle=100,
        shrink=0.03,
        report_interval=100,
    ),
]
