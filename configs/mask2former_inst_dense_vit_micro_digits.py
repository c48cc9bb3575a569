# Mask2Former finds handwritten digits in scenes made by tools/make_digits.py,
# each with a mask of its own, and tells them apart; from random weights. The
# control.
_base_ = [
    './_base_/models/mask2former_instance_vit_micro.py',
    './_base_/datasets/digits_instances.py',
    './_base_/default_runtime_det.py',
    './_base_/schedules/adamw_micro_det.py',
]
model = dict(
    panoptic_head=dict(
        num_things_classes=10,
        num_queries=20,
        loss_cls=dict(class_weight=[1.0] * 10 + [0.1]),
    ),
    panoptic_fusion_head=dict(num_things_classes=10),
)
auto_scale_lr = dict(base_batch_size=8)
