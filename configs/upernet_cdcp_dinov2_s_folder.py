# CDCP in the task itself: after 1 000 iterations channels go in
# 0.5 / 0.001 x 25 = 12 500;
# the rest of the run lets them vanish. tools/export_pruned.py makes the small
# model.
_base_ = './upernet_dense_dinov2_s_folder.py'
model = dict(backbone=dict(compactors=True))
custom_hooks = [
    dict(
        type='CDCPHook',
        target=0.5,
        img_size=_base_.crop_size,
        warmup=1000,
        increment=0.001,
        settle=4000,
        shrink=0.002,
    ),
]
