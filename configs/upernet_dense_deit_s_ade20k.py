# UperNet, DeiT-Small without compression, ADE20K 512x512: the control.
#
# The paper's recipe (CAIT IV-B): 160 000 iterations of 32 images (8 GPUs x 4),
# AdamW 6e-5, weight decay 0.01. 160 000 x 32 / 20 210 images = 253 epochs.
# It says no more: 1500 iterations of warm-up, linear decay to 0, no decay of
# norms and stochastic depth 0.1 are MMSegmentation's usual for ViTs.
_base_ = [
    './_base_/models/upernet_deit_s.py',
    './_base_/datasets/ade20k.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py',
]
# made by: tools/convert_checkpoint.py deit_small_patch16_224.fb_in1k
#   checkpoints/deit_small_in1k.pth
model = dict(backbone=dict(checkpoint='checkpoints/deit_small_in1k.pth'))
