# Mask2Former for instances, DeiT-Small with pruned channels (CDCP), COCO
# 2017.
_base_ = [
    './mask2former_dense_deit_s_coco.py',
    './_base_/backbones/cdcp_deit_s.py',
]
model = dict(backbone=_base_.backbone)
