# The CASCADE decoder, DeiT-Small with merged tokens (ATME), ACDC.
_base_ = [
    './cascade_dense_deit_s_acdc.py',
    './_base_/backbones/atme_deit_s.py',
]
model = dict(backbone=_base_.backbone)
