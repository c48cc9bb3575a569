# ViT-Base; see lifeslim_vit_t_in1k.py.
_base_ = './lifeslim_vit_t_in1k.py'
checkpoint = 'checkpoints/vit_base_augreg_in21k_ft_in1k.pth'
backbone = dict(arch='vit_base', checkpoint=checkpoint)

model = dict(
    backbone=backbone,
    distillation=dict(alpha=0.25, teacher=dict(backbone=backbone)),
)
