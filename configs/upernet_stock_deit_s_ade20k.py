# UperNet, DeiT-Small without compression, with MMSegmentation's own pyramid
# and head: what the others' speed is measured against. Same weights and
# outputs as upernet_dense_deit_s_ade20k.py.
_base_ = './upernet_dense_deit_s_ade20k.py'
model = dict(
    backbone=dict(restore=True),
    neck=dict(type='Feature2Pyramid'),
    decode_head=dict(type='UPerHead'),
)
