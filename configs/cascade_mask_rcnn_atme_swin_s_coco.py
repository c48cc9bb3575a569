# Cascade Mask R-CNN, Swin-Small with merged tokens (ATME), COCO.
_base_ = [
    './cascade_mask_rcnn_dense_swin_s_coco.py',
    './_base_/backbones/atme_swin_s.py',
]
model = dict(backbone=_base_.backbone)
