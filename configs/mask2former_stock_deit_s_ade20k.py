# Mask2Former, DeiT-Small without compression, with MMSegmentation's own
# pyramid and head: what the others' speed is measured against. Same weights
# and outputs as mask2former_dense_deit_s_ade20k.py.
_base_ = './mask2former_dense_deit_s_ade20k.py'
model = dict(
    backbone=dict(restore=True),
    neck=dict(type='Feature2Pyramid'),
    decode_head=dict(
        type='Mask2FormerHead',
        pixel_decoder=dict(type='mmdet.MSDeformAttnPixelDecoder'),
    ),
)
