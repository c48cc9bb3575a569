# A student that starts as its teacher; made by: tools/convert_checkpoint.py
#   deit_small_patch16_224.fb_in1k checkpoints/deit_small_in1k.pth
_base_ = '../datasets/images.py'
model = dict(
    type='FeatureDistiller',
    backbone=dict(
        type='CompressedViT',
        arch='deit_small',
        checkpoint='checkpoints/deit_small_in1k.pth',
    ),
)
