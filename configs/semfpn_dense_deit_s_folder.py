# Semantic FPN, DeiT-Small without compression, on images of your own: the
# control.
_base_ = [
    './_base_/models/semfpn_deit_s.py',
    './_base_/datasets/folder.py',
    './_base_/schedules/adamw_20k.py',
    './_base_/default_runtime.py',
]
# made by: tools/convert_checkpoint.py deit_small_patch16_224.fb_in1k
#   checkpoints/deit_small_in1k.pth
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        img_size=_base_.crop_size,
        checkpoint='checkpoints/deit_small_in1k.pth',
    ),
    decode_head=dict(num_classes=len(_base_.classes)),
)
