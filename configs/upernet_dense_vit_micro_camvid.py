# UperNet on a small ViT without compression, CamVid at half its size: the
# control. The backbone comes from tools/train.py
# configs/imagenet/dense_vit_micro_tiny_imagenet_20.py and
# tools/export_pruned.py.
_base_ = [
    './_base_/models/upernet_vit_micro.py',
    './_base_/datasets/camvid_half.py',
    './_base_/schedules/camvid_600.py',
    './_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        img_size=_base_.crop_size,
        checkpoint='checkpoints/dense_vit_micro_tiny_imagenet_20.pth',
    ),
    decode_head=dict(channels=64, num_classes=11),
    auxiliary_head=dict(channels=64, num_classes=11),
)
