# DINOv2's ViT-S fine-tuned under a linear head, without compression, CamVid at
# 336x252: the control. A head that learns at once shows within minutes what
# compression costs the backbone.
_base_ = [
    './_base_/models/linear_dinov2_s.py',
    './_base_/datasets/camvid_patch14.py',
    './_base_/schedules/dinov2_320_linear.py',
    './_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        img_size=_base_.crop_size,
        frozen_stages=-1,  # everything learns
        checkpoint='checkpoints/dinov2_small.pth',
    ),
    decode_head=dict(num_classes=11),
)
train_dataloader = dict(batch_size=4)
