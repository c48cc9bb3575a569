# UperNet, DINOv3's ViT-S without compression, ADE20K 512x512: the control.
# It starts from the pretrained backbone (tools/convert_checkpoint.py
# vit_small_patch16_dinov3.lvd1689m checkpoints/dinov3_small.pth).
_base_ = './upernet_dense_deit_s_ade20k.py'
model = dict(
    backbone=dict(
        arch='dinov3_small', checkpoint='checkpoints/dinov3_small.pth'
    )
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.75))
