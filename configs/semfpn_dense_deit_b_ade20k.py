# Semantic FPN, DeiT-Base without compression, ADE20K 512x512: the control.
_base_ = './semfpn_dense_deit_s_ade20k.py'
checkpoint = 'checkpoints/deit_base_in1k.pth'
model = dict(
    backbone=dict(arch='deit_base', checkpoint=checkpoint),
    neck=dict(embed_dim=768),
)
