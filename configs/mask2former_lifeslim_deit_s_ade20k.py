# Mask2Former, DeiT-Small with patches that leave (life regression), ADE20K
# 512x512.
_base_ = [
    './mask2former_dense_deit_s_ade20k.py',
    './_base_/backbones/lifeslim_deit_s.py',
]
model = dict(backbone=_base_.backbone)
