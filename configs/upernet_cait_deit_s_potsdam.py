# UperNet, DeiT-Small with merged tokens and pruned channels (CAIT), Potsdam.
_base_ = [
    './upernet_dense_deit_s_potsdam.py',
    './_base_/backbones/cait_deit_s.py',
]
model = dict(backbone=_base_.backbone)
