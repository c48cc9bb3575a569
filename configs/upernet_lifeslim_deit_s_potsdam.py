# UperNet, DeiT-Small with patches that leave (life regression), Potsdam.
_base_ = [
    './upernet_dense_deit_s_potsdam.py',
    './_base_/backbones/lifeslim_deit_s.py',
]
model = dict(backbone=_base_.backbone)
