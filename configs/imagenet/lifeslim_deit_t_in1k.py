# DeiT-Tiny; see lifeslim_deit_s_in1k.py.
_base_ = './lifeslim_deit_s_in1k.py'

model = dict(
    backbone=dict(
        arch='deit_tiny',
        checkpoint='checkpoints/deit_tiny_in1k.pth',
    ),
)
