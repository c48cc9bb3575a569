# Mask R-CNN finds handwritten digits in scenes made by tools/make_digits.py
# and tells them apart, from random weights. The control.
_base_ = [
    './_base_/models/mask_rcnn_vit_micro.py',
    './_base_/datasets/digits_instances.py',
    './_base_/default_runtime_det.py',
    './_base_/schedules/adamw_micro_det.py',
]
heads = dict(bbox_head=dict(num_classes=10), mask_head=dict(num_classes=10))
model = dict(roi_head=heads)
auto_scale_lr = dict(base_batch_size=8)
