# Cascade Mask R-CNN, Swin-Small without compression, COCO: the control.
_base_ = './cascade_mask_rcnn_dense_swin_t_coco.py'
checkpoint = 'checkpoints/swin_small_in1k.pth'
model = dict(backbone=dict(arch='swin_small', checkpoint=checkpoint))
