# Mask R-CNN, DINOv3's ViT-Small without compression, COCO 2017: the control.
# The recipe of mask_rcnn_dense_deit_s_coco.py, but early blocks learn more
# slowly (layer decay, ViTDet's). It starts from the pretrained backbone
# (tools/convert_checkpoint.py vit_small_patch16_dinov3.lvd1689m
# checkpoints/dinov3_small.pth).
_base_ = './mask_rcnn_dense_deit_s_coco.py'
model = dict(
    backbone=dict(
        arch='dinov3_small', checkpoint='checkpoints/dinov3_small.pth'
    )
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.7))
