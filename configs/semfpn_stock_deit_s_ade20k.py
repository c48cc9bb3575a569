# Semantic FPN, DeiT-Small without compression, with MMSegmentation's own
# pyramid and head: what the others' speed is measured against. Same weights
# and outputs as semfpn_dense_deit_s_ade20k.py.
_base_ = './semfpn_dense_deit_s_ade20k.py'
neck = _base_.model.neck
neck[0].type = 'Feature2Pyramid'
model = dict(
    backbone=dict(restore=True),
    neck=neck,
)
