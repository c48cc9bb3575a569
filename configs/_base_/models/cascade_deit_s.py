# The CASCADE decoder (Rahman and Marculescu, WACV 2023) on DeiT-Small. Its
# widths are those of the paper; each map of the pyramid comes to them by a 1x1
# convolution. The losses of the four stages are summed.
_base_ = './deit_s_pyramid.py'
model = dict(
    data_preprocessor=dict(size=(224, 224)),
    backbone=dict(img_size=(224, 224)),
    decode_head=dict(
        type='mmvitcompress.CascadeDecodeHead',
        in_channels=[384, 384, 384, 384],
        widths=(64, 128, 320, 512),
        num_classes=9,
        align_corners=False,
        loss_decode=[
            dict(type='CrossEntropyLoss', loss_weight=0.3),
            dict(type='mmvitcompress.BatchDiceLoss', loss_weight=0.7),
        ],
    ),
)
