# LV-ViT-S; see dense_deit_s_in1k.py. The released model classifies all
# patches, too, and is evaluated on crops of 0.9 of the image's side.
_base_ = './dense_deit_s_in1k.py'
checkpoint = 'checkpoints/lvvit_small_in1k.pth'
backbone = dict(arch='lvvit_small', checkpoint=checkpoint)

model = dict(
    backbone=backbone,
    auxiliary_head=True,
    distillation=dict(teacher=dict(backbone=backbone, auxiliary_head=True)),
)
val_dataloader = dict(dataset=dict(transform=dict(crop_pct=0.9)))
test_dataloader = val_dataloader
