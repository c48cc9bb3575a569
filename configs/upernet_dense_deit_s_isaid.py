# UperNet, DeiT-Small without compression, iSAID: the control.
#
# As in the study of pretraining for remote sensing (Wang et al., 2022) that
# the paper follows: 80 000 iterations of 8 crops of 896x896 (4 GPUs x 2),
# AdamW 6e-5, weight decay 0.01. 80 000 x 8 / 33 978 crops = 19 epochs.
_base_ = [
    './_base_/models/upernet_deit_s.py',
    './_base_/datasets/isaid.py',
    './_base_/schedules/adamw_80k.py',
    './_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        img_size=_base_.crop_size, checkpoint='checkpoints/deit_small_in1k.pth'
    ),
    decode_head=dict(num_classes=16),
    auxiliary_head=dict(num_classes=16),
)
auto_scale_lr = dict(base_batch_size=8)
