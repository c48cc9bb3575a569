# Mask2Former on DINOv2's ViT-Small: strides 3.5, 7, 14 and 28; the pixel
# decoder wants even numbers of patches.
_base_ = './mask2former_deit_s.py'
model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=28)),
    backbone=dict(arch='dinov2_small'),
    decode_head=dict(strides=[3.5, 7, 14, 28]),
)
