# Mask2Former for instances, DeiT-Small without compression, COCO 2017: the
# control.
#
# Mask2Former's own recipe: 50 epochs of 16 images (8 GPUs x 2) with
# large-scale jitter to 1024x1024 pixels, AdamW 1e-4, a tenth of it in the
# backbone, weight decay 0.05, gradients clipped at 0.01.
_base_ = [
    './_base_/models/mask2former_instance_deit_s.py',
    './_base_/datasets/coco_instance_lsj.py',
    './_base_/schedules/mask2former_50e.py',
    './_base_/default_runtime_det.py',
]
# made by: tools/convert_checkpoint.py deit_small_patch16_224.fb_in1k
#   checkpoints/deit_small_in1k.pth
# the images of a batch are padded to one size, so that DDP's ranks agree
batch_pad = dict(type='BatchFixedSizePad', size=(1024, 1024), pad_mask=True)
model = dict(
    data_preprocessor=dict(batch_augments=[batch_pad]),
    backbone=dict(checkpoint='checkpoints/deit_small_in1k.pth'),
)
