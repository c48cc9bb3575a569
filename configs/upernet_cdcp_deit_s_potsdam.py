# UperNet, DeiT-Small with pruned channels (CDCP), Potsdam.
_base_ = [
    './upernet_dense_deit_s_potsdam.py',
    './_base_/backbones/cdcp_deit_s.py',
]
model = dict(backbone=_base_.backbone)
