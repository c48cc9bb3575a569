# Mask2Former on DINOv2's ViT-Small; the pixel decoder wants even numbers of
# patches. Its strides 4 to 32 stand for 3.5 to 28: points are placed relative
# to the maps.
_base_ = './mask2former_deit_s.py'
model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=28)),
    backbone=dict(arch='dinov2_small'),
)
