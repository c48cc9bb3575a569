# LV-ViT-S; see dense_deit_s_in1k.py.
_base_ = './dense_deit_s_in1k.py'
checkpoint = 'checkpoints/lvvit_small_in1k.pth'
backbone = dict(arch='lvvit_small', checkpoint=checkpoint)

model = dict(
    backbone=backbone,
    distillation=dict(teacher=dict(backbone=backbone)),
)
