# Semantic FPN on DINOv2's ViT-Small. Patches of 14 pixels make a pyramid of
# strides 3.5, 7, 14 and 28; images are padded to whole patches.
_base_ = './semfpn_deit_s.py'
model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=14)),
    backbone=dict(arch='dinov2_small'),
)
