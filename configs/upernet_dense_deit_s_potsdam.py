# UperNet, DeiT-Small without compression, Potsdam: the control.
#
# As in the study of pretraining for remote sensing (Wang et al., 2022) that
# the paper follows: 80 000 iterations of 8 crops of 512x512 (one GPU), AdamW
# 6e-5, weight decay 0.01, clutter ignored.
# 80 000 x 8 / 3 456 tiles = 185 epochs.
_base_ = [
    './_base_/models/upernet_deit_s.py',
    './_base_/datasets/potsdam.py',
    './_base_/schedules/adamw_80k.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(checkpoint='checkpoints/deit_small_in1k.pth'),
    decode_head=dict(num_classes=5),
    auxiliary_head=dict(num_classes=5),
)
auto_scale_lr = dict(base_batch_size=8)
