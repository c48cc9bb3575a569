# UperNet, DeiT-Small with merged tokens (ATME), CamVid.
_base_ = [
    './upernet_dense_deit_s_camvid.py',
    './_base_/backbones/atme_deit_s.py',
]
model = dict(backbone=_base_.backbone)
