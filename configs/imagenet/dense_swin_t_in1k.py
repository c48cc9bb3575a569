# Swin-Tiny; see dense_deit_s_in1k.py.
_base_ = './dense_deit_s_in1k.py'
checkpoint = 'checkpoints/swin_tiny_in1k.pth'
backbone = dict(type='CompressedSwin', arch='swin_tiny', checkpoint=checkpoint)

model = dict(
    backbone=backbone,
    distillation=dict(teacher=dict(backbone=backbone)),
)
