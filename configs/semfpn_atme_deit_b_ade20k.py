# Semantic FPN, DeiT-Base with merged tokens (ATME), ADE20K 512x512.
_base_ = [
    './semfpn_dense_deit_b_ade20k.py',
    './_base_/backbones/atme_deit_b.py',
]
model = dict(backbone=_base_.backbone)
