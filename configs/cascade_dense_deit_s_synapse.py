# The CASCADE decoder, DeiT-Small without compression, Synapse 224x224: the
# control.
#
# CASCADE's recipe: 150 epochs of 24 slices an iteration, AdamW 1e-4 without
# decay of the rate, weight decay 1e-4, 0.3 cross-entropy + 0.7 Dice.
_base_ = [
    './_base_/models/cascade_deit_s.py',
    './_base_/datasets/synapse.py',
    './_base_/schedules/cascade_14k.py',
    './_base_/default_runtime.py',
]
# made by: tools/convert_checkpoint.py deit_small_patch16_224.fb_in1k
#   checkpoints/deit_small_in1k.pth
model = dict(backbone=dict(checkpoint='checkpoints/deit_small_in1k.pth'))
