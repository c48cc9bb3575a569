# ViT-Base; see lifeslim_vit_t_in1k.py.
_base_ = './lifeslim_vit_t_in1k.py'

model = dict(
    backbone=dict(
        arch='vit_base',
        checkpoint='checkpoints/vit_base_augreg_in21k_ft_in1k.pth',
    ),
)
