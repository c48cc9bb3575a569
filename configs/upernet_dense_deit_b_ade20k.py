# UperNet, DeiT-Base without compression, ADE20K 512x512: the control.
_base_ = './upernet_dense_deit_s_ade20k.py'
checkpoint = 'checkpoints/deit_base_in1k.pth'
model = dict(
    backbone=dict(arch='deit_base', checkpoint=checkpoint),
    neck=dict(embed_dim=768),
    decode_head=dict(in_channels=[768] * 4),
    auxiliary_head=dict(in_channels=768),
)
