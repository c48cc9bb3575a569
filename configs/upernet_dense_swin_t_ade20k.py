# UperNet, Swin-Tiny without compression, ADE20K 512x512: the control.
#
# Swin's own recipe: 160 000 iterations of 16 images (8 GPUs x 2), AdamW 6e-5,
# weight decay 0.01, 1500 iterations of warm-up, then linear decay to 0;
# stochastic depth 0.3. 160 000 x 16 / 20 210 images = 127 epochs.
_base_ = [
    './_base_/models/upernet_swin_t.py',
    './_base_/datasets/ade20k.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py',
]
# made by: tools/convert_checkpoint.py swin_tiny_patch4_window7_224.ms_in1k
#   checkpoints/swin_tiny_in1k.pth
model = dict(backbone=dict(checkpoint='checkpoints/swin_tiny_in1k.pth'))

train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(base_batch_size=16)
