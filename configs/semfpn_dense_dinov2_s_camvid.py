# Semantic FPN on DINOv2's ViT-S without compression, CamVid at 336x252: the
# control. It starts from the pretrained backbone (tools/convert_checkpoint.py
# vit_small_patch14_dinov2.lvd142m checkpoints/dinov2_small.pth), without class
# labels. A narrow head leaves the time to the backbone, and it learns from
# pixels that are not yet sure (OHEM), since poles, signs and people have 3 %
# of them.
_base_ = [
    './_base_/models/semfpn_dinov2_s.py',
    './_base_/datasets/camvid_patch14.py',
    './_base_/schedules/dinov2_320.py',
    './_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        img_size=_base_.crop_size,
        drop_path_rate=0.0,  # the run is short
        checkpoint='checkpoints/dinov2_small.pth',
    ),
    neck=dict(out_channels=64),
    decode_head=dict(
        in_channels=[64] * 4,
        channels=32,
        num_classes=11,
        sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=8000),
    ),
)
train_dataloader = dict(batch_size=4)
