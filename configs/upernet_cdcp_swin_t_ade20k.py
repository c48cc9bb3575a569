# UperNet, Swin-Tiny with pruned channels (CDCP), ADE20K 512x512.
_base_ = [
    './upernet_dense_swin_t_ade20k.py',
    './_base_/backbones/cdcp_swin_t.py',
]
model = dict(backbone=_base_.backbone)
