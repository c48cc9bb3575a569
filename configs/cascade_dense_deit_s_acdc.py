# The CASCADE decoder, DeiT-Small without compression, ACDC 224x224: the
# control.
#
# CASCADE's recipe: 150 epochs of 12 slices an iteration, some 1300 / 12 = 109
# iterations each; AdamW 1e-4 without decay of the rate, weight decay 1e-4,
# 0.3 cross-entropy + 0.7 Dice.
_base_ = [
    './_base_/models/cascade_deit_s.py',
    './_base_/datasets/acdc.py',
    './_base_/schedules/cascade_14k.py',
    './_base_/default_runtime.py',
]
# made by: tools/convert_checkpoint.py deit_small_patch16_224.fb_in1k
#   checkpoints/deit_small_in1k.pth
model = dict(
    backbone=dict(checkpoint='checkpoints/deit_small_in1k.pth'),
    decode_head=dict(num_classes=4),
)
train_cfg = dict(max_iters=16000, val_interval=1600)
default_hooks = dict(checkpoint=dict(interval=1600))
auto_scale_lr = dict(base_batch_size=12)
