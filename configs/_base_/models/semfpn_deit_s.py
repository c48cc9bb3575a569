# Semantic FPN on DeiT-Small.
_base_ = './deit_s_pyramid.py'
model = dict(
    # UnmergePyramid and FPN in one
    neck=dict(type='mmvitcompress.UnmergeFPN', out_channels=256),
    decode_head=dict(
        type='mmvitcompress.FastFPNHead',  # equal to FPNHead
        in_channels=[256, 256, 256, 256],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=128,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=_base_.norm_cfg,
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0
        ),
    ),
)
