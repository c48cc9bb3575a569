# Cascade Mask R-CNN, Swin-Tiny with merged tokens (ATME), COCO.
_base_ = [
    './cascade_mask_rcnn_dense_swin_t_coco.py',
    './_base_/backbones/atme_swin_t.py',
]
model = dict(backbone=_base_.backbone)
