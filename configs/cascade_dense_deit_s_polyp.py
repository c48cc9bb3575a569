# The CASCADE decoder, DeiT-Small without compression, polyps 352x352: the
# control.
#
# CASCADE's recipe: 100 epochs of 16 images an iteration, each batch at 256,
# 352 and 448 px: 100 x 3 x 1450 / 16 = 27 188 iterations of one size each;
# AdamW 1e-4 without decay of the rate, weight decay 1e-4, gradients clipped
# to +-0.5, weighted cross-entropy + weighted IoU.
_base_ = [
    './_base_/models/cascade_deit_s.py',
    './_base_/datasets/polyp.py',
    './_base_/schedules/cascade_14k.py',
    './_base_/default_runtime.py',
]
image_size = (352, 352)
model = dict(
    data_preprocessor=dict(
        type='mmvitcompress.MultiScalePreProcessor',
        sizes=[(256, 256), (352, 352), (448, 448)],
        size=image_size,
    ),
    # made by: tools/convert_checkpoint.py deit_small_patch16_224.fb_in1k
    #   checkpoints/deit_small_in1k.pth
    backbone=dict(
        img_size=image_size,
        checkpoint='checkpoints/deit_small_in1k.pth',
    ),
    decode_head=dict(
        num_classes=2,
        out_channels=1,
        threshold=0.5,
        loss_decode=dict(_delete_=True, type='mmvitcompress.StructureLoss'),
    ),
)
optim_wrapper = dict(clip_grad=dict(type='value', clip_value=0.5))
train_cfg = dict(max_iters=27000, val_interval=2700)
default_hooks = dict(checkpoint=dict(interval=2700))
auto_scale_lr = dict(base_batch_size=16)
