# UperNet, DeiT-Small with patches that leave (life regression), iSAID.
_base_ = [
    './upernet_dense_deit_s_isaid.py',
    './_base_/backbones/lifeslim_deit_s.py',
]
model = dict(backbone=_base_.backbone)
