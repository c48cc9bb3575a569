# UperNet, DINOv3's ViT-S without compression, images of your own: the
# control. It starts from the pretrained backbone (tools/convert_checkpoint.py
# vit_small_patch16_dinov3.lvd1689m checkpoints/dinov3_small.pth).
_base_ = [
    './_base_/models/upernet_deit_s.py',
    './_base_/datasets/folder.py',
    './_base_/schedules/adamw_20k.py',
    './_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        arch='dinov3_small',
        img_size=_base_.crop_size,
        checkpoint='checkpoints/dinov3_small.pth',
    ),
    decode_head=dict(num_classes=len(_base_.classes)),
    auxiliary_head=dict(num_classes=len(_base_.classes)),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.75))
