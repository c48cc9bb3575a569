# The CASCADE decoder, DeiT-Small with pruned channels (CDCP), polyps.
_base_ = [
    './cascade_dense_deit_s_polyp.py',
    './_base_/backbones/cdcp_deit_s.py',
]
model = dict(backbone=_base_.backbone)
