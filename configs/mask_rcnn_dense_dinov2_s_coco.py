# Mask R-CNN, DINOv2's ViT-Small without compression, COCO 2017: the control.
#
# The recipe of mask_rcnn_dense_deit_s_coco.py at 7/8 of the size, 1166x700:
# 84 x 50 patches of 14 pixels where DeiT has 84 x 50 of 16. Early blocks learn
# more slowly (layer decay, ViTDet's).
_base_ = [
    './_base_/models/mask_rcnn_dinov2_s.py',
    './_base_/datasets/coco_instance.py',
    './_base_/schedules/adamw_12e.py',
    './_base_/default_runtime_det.py',
]
scale = (1166, 700)
model = dict(backbone=dict(img_size=(700, 1166)))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.7))

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=scale)  # Resize
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=scale)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
