# Semantic FPN, DeiT-Small without compression, ADE20K 512x512: the control.
#
# The paper's recipe (CAIT IV-B): 80 000 iterations of 32 images (8 GPUs x 4),
# AdamW 6e-5, weight decay 0.01. Not the paper's: warm-up, linear decay and
# stochastic depth, as for UperNet.
_base_ = [
    './_base_/models/semfpn_deit_s.py',
    './_base_/datasets/ade20k.py',
    './_base_/schedules/adamw_80k.py',
    './_base_/default_runtime.py',
]
# made by: tools/convert_checkpoint.py deit_small_patch16_224.fb_in1k
#   checkpoints/deit_small_in1k.pth
model = dict(backbone=dict(checkpoint='checkpoints/deit_small_in1k.pth'))
