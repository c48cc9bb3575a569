# Semantic FPN, DeiT-Tiny without compression, ADE20K 512x512: the control.
_base_ = './semfpn_dense_deit_s_ade20k.py'
checkpoint = 'checkpoints/deit_tiny_in1k.pth'
model = dict(
    backbone=dict(arch='deit_tiny', checkpoint=checkpoint),
    neck=dict(embed_dim=192),
)
