# The CASCADE decoder, DeiT-Small with merged tokens and pruned
# channels (CAIT), ACDC.
_base_ = [
    './cascade_dense_deit_s_acdc.py',
    './_base_/backbones/cait_deit_s.py',
]
model = dict(backbone=_base_.backbone)
