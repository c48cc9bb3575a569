# Cascade Mask R-CNN, Swin-Small with merged tokens and pruned channels (CAIT),
# COCO.
_base_ = [
    './cascade_mask_rcnn_dense_swin_s_coco.py',
    './_base_/backbones/cait_swin_s.py',
]
model = dict(backbone=_base_.backbone)
