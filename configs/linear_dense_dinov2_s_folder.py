# Linear probe of DINOv2's ViT-S, frozen and uncompressed, on images of your
# own.
_base_ = [
    './_base_/models/linear_dinov2_s.py',
    './_base_/datasets/folder_patch14.py',
    './_base_/schedules/linear_500.py',
    './_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        img_size=_base_.crop_size,
        checkpoint='checkpoints/dinov2_small.pth',
    ),
    decode_head=dict(num_classes=len(_base_.classes)),
)
