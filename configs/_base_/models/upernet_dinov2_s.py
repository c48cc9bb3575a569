# UperNet on DINOv2's ViT-Small: strides 3.5, 7, 14 and 28.
_base_ = './upernet_deit_s.py'
model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=14)),
    backbone=dict(arch='dinov2_small'),
)
