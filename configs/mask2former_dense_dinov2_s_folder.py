# Mask2Former, DINOv2's ViT-S without compression, images of your own: the
# control. It starts from the pretrained backbone (tools/convert_checkpoint.py
# vit_small_patch14_dinov2.lvd142m checkpoints/dinov2_small.pth).
_base_ = [
    './_base_/models/mask2former_dinov2_s.py',
    './_base_/datasets/folder_patch14.py',
    './_base_/schedules/adamw_20k.py',
    './_base_/default_runtime.py',
]
num_classes = len(_base_.classes)
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        img_size=_base_.crop_size,
        checkpoint='checkpoints/dinov2_small.pth',
    ),
    decode_head=dict(
        num_classes=num_classes,
        loss_cls=dict(class_weight=[1.0] * num_classes + [0.1]),
    ),
)
optim_wrapper = _base_.head_optim_wrapper
