# ViT-Small; see lifeslim_vit_t_in1k.py.
_base_ = './lifeslim_vit_t_in1k.py'

model = dict(
    backbone=dict(
        arch='vit_small',
        checkpoint='checkpoints/vit_small_augreg_in21k_ft_in1k.pth',
    ),
)
