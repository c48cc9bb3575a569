# Mask2Former for instances, DeiT-Small with patches that leave (life
# regression), COCO 2017.
_base_ = [
    './mask2former_dense_deit_s_coco.py',
    './_base_/backbones/lifeslim_deit_s.py',
]
model = dict(backbone=_base_.backbone)
