# Semantic FPN on a ViT that trains on a laptop. Patches of 8 pixels make a
# pyramid of strides 2, 4, 8 and 16.
_base_ = './semfpn_deit_s.py'
model = dict(
    data_preprocessor=dict(size=(128, 128), test_cfg=dict(size_divisor=8)),
    backbone=dict(
        arch='vit_micro',
        img_size=(128, 128),
        out_indices=(1, 3, 5, 7),
        drop_path_rate=0.0,
    ),
    neck=dict(embed_dim=96, out_channels=64),
    decode_head=dict(
        in_channels=[64] * 4,
        feature_strides=[2, 4, 8, 16],
        channels=32,
        num_classes=2,
    ),
)
