# UperNet, DeiT-Small without compression, CamVid: the control.
#
# One GPU, 8 crops of 352x352 an iteration. Images of 480x360 are evaluated
# whole; their 360 rows make 22.5 patches, so the last row of patches is
# padded and cut off again.
_base_ = [
    './_base_/models/upernet_deit_s.py',
    './_base_/datasets/camvid.py',
    './_base_/schedules/adamw_20k.py',
    './_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        img_size=_base_.crop_size, checkpoint='checkpoints/deit_small_in1k.pth'
    ),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11),
)
