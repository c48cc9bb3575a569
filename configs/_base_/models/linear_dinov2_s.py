# Linear probe: batch norm and a 1x1 convolution on the restored maps of four
# blocks of a frozen ViT-Small of DINOv2. It measures features, not heads.
_base_ = './deit_s_pyramid.py'
model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=14)),
    backbone=dict(
        arch='dinov2_small',
        drop_path_rate=0.0,
        frozen_stages=12,  # all blocks
        restore=True,
    ),
    neck=None,
    decode_head=dict(
        type='mmvitcompress.LinearHead',
        in_channels=[384] * 4,
        num_classes=150,
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0
        ),
    ),
)
