# CDCP in the task itself: after 8 000 iterations channels go in
# 0.5 / 0.00025 x 25 = 50 000;
# the rest of the run lets them vanish. tools/export_pruned.py makes the small
# model.
_base_ = './upernet_dense_dinov2_s_ade20k.py'
model = dict(backbone=dict(compactors=True))
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.5,
        img_size=_base_.crop_size,
        warmup=8000,
        increment=0.00025,
        settle=15000,
        shrink=0.0005,
    ),
]
