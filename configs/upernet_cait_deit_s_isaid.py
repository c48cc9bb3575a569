# UperNet, DeiT-Small with merged tokens and pruned channels (CAIT), iSAID.
_base_ = [
    './upernet_dense_deit_s_isaid.py',
    './_base_/backbones/cait_deit_s.py',
]
model = dict(backbone=_base_.backbone)
