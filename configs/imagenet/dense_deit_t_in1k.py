# DeiT-Tiny; see dense_deit_s_in1k.py.
_base_ = './dense_deit_s_in1k.py'
checkpoint = 'checkpoints/deit_tiny_in1k.pth'
backbone = dict(arch='deit_tiny', checkpoint=checkpoint)

model = dict(
    backbone=backbone,
    distillation=dict(alpha=0.1, teacher=dict(backbone=backbone)),
)
