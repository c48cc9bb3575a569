# Mask R-CNN, DeiT-Small with merged tokens and pruned channels (CAIT), COCO
# 2017.
_base_ = [
    './mask_rcnn_dense_deit_s_coco.py',
    './_base_/backbones/cait_deit_s.py',
]
model = dict(backbone=_base_.backbone)
