# Mask2Former, DeiT-Small with merged tokens (ATME), CamVid.
_base_ = [
    './mask2former_dense_deit_s_camvid.py',
    './_base_/backbones/atme_deit_s.py',
]
model = dict(backbone=_base_.backbone)
