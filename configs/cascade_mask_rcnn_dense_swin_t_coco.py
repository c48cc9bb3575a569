# Cascade Mask R-CNN, Swin-Tiny without compression, COCO: the control.
#
# Swin's own recipe: 36 epochs of 16 images (8 GPUs x 2) whose shorter sides
# have 480 to 800 pixels, AdamW 1e-4, weight decay 0.05, 1000 iterations of
# warm-up, a tenth of the rate from epochs 27 and 33 on; stochastic depth 0.2.
_base_ = [
    './_base_/models/cascade_mask_rcnn_swin_t.py',
    './_base_/datasets/coco_instance_multiscale.py',
    './_base_/schedules/adamw_36e.py',
    './_base_/default_runtime_det.py',
]
# made by: tools/convert_checkpoint.py swin_tiny_patch4_window7_224.ms_in1k
#   checkpoints/swin_tiny_in1k.pth
model = dict(backbone=dict(checkpoint='checkpoints/swin_tiny_in1k.pth'))
