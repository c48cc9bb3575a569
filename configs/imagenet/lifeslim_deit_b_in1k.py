# DeiT-Base; see lifeslim_deit_s_in1k.py.
_base_ = './lifeslim_deit_s_in1k.py'
checkpoint = 'checkpoints/deit_base_in1k.pth'
backbone = dict(arch='deit_base', checkpoint=checkpoint)

model = dict(
    backbone=backbone,
    distillation=dict(teacher=dict(backbone=backbone)),
)
