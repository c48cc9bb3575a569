# Mask R-CNN, DeiT-Small without compression, COCO 2017: the control.
#
# The paper's recipe (CAIT IV-B): 12 epochs of 16 images (8 GPUs x 2) of at
# most 1333x800 pixels, AdamW 2e-4. Ours: weight decay 0.05, 1000 iterations of
# warm-up, a tenth of the rate from epochs 8 and 11 on, stochastic depth 0.1.
_base_ = [
    './_base_/models/mask_rcnn_deit_s.py',
    './_base_/datasets/coco_instance.py',
    './_base_/schedules/adamw_12e.py',
    './_base_/default_runtime_det.py',
]
# made by: tools/convert_checkpoint.py deit_small_patch16_224.fb_in1k
#   checkpoints/deit_small_in1k.pth
model = dict(backbone=dict(checkpoint='checkpoints/deit_small_in1k.pth'))
