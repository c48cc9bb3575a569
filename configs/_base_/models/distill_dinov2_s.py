# A student that starts as its teacher; made by: tools/convert_checkpoint.py
#   vit_small_patch14_dinov2.lvd142m checkpoints/dinov2_small.pth
_base_ = '../datasets/images.py'
model = dict(
    type='FeatureDistiller',
    backbone=dict(
        type='CompressedViT',
        arch='dinov2_small',
        checkpoint='checkpoints/dinov2_small.pth',
    ),
)
