# Mask2Former, DeiT-Small without compression, CamVid: the control.
#
# One GPU, 8 crops of 352x352 an iteration; see upernet_dense_deit_s_camvid.py.
_base_ = [
    './_base_/models/mask2former_deit_s.py',
    './_base_/datasets/camvid.py',
    './_base_/schedules/adamw_20k.py',
    './_base_/default_runtime.py',
]
num_classes = 11
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        img_size=_base_.crop_size, checkpoint='checkpoints/deit_small_in1k.pth'
    ),
    decode_head=dict(
        num_classes=num_classes,
        loss_cls=dict(class_weight=[1.0] * num_classes + [0.1]),
    ),
)
optim_wrapper = _base_.head_optim_wrapper
