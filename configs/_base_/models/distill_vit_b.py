# A student that starts as its teacher; made by: tools/convert_checkpoint.py
#   vit_base_patch16_224.augreg2_in21k_ft_in1k checkpoints/vit_base_augreg.pth
_base_ = '../datasets/images.py'
model = dict(
    type='FeatureDistiller',
    backbone=dict(
        type='CompressedViT',
        arch='vit_base',
        checkpoint='checkpoints/vit_base_augreg.pth',
    ),
)
# what these weights were trained with, unlike the others'
normalised = dict(
    dataset=dict(transform=dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
)
train_dataloader = normalised
val_dataloader = normalised
test_dataloader = normalised
