# Mask R-CNN, DeiT-Small without compression, with MMDetection's own pyramid
# and head: what the others' speed is measured against. Same weights and
# outputs as mask_rcnn_dense_deit_s_coco.py.
_base_ = './mask_rcnn_dense_deit_s_coco.py'
neck = _base_.model.neck
neck[0].type = 'mmseg.Feature2Pyramid'
model = dict(
    backbone=dict(restore=True),
    neck=neck,
)
