# UperNet, DeiT-Small with pruned channels (CDCP), iSAID.
_base_ = [
    './upernet_dense_deit_s_isaid.py',
    './_base_/backbones/cdcp_deit_s.py',
]
model = dict(backbone=_base_.backbone)
