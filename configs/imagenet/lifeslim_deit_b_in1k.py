# DeiT-Base; see lifeslim_deit_s_in1k.py.
_base_ = './lifeslim_deit_s_in1k.py'

model = dict(
    backbone=dict(
        arch='deit_base',
        checkpoint='checkpoints/deit_base_in1k.pth',
    ),
)
