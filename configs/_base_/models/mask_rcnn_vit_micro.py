# Mask R-CNN on a ViT that trains on a laptop, from random weights. Patches of
# 8 pixels make a pyramid of strides 2, 4, 8 and 16; anchors have edges of 8 to
# 128 pixels.
_base_ = './mask_rcnn_deit_s.py'
strides = [2, 4, 8, 16]
channels = 64
regions = dict(out_channels=channels, featmap_strides=strides)
model = dict(
    backbone=dict(
        arch='vit_micro',
        img_size=(128, 128),
        out_indices=(1, 3, 5, 7),
        drop_path_rate=0.0,
    ),
    neck=dict(embed_dim=96, out_channels=channels),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4], strides=[*strides, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=regions,
        bbox_head=dict(
            in_channels=channels, fc_out_channels=256, num_classes=1
        ),
        mask_roi_extractor=regions,
        mask_head=dict(
            num_convs=2,
            in_channels=channels,
            conv_out_channels=channels,
            num_classes=1,
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=250),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=500, max_per_img=300), rcnn=dict(max_per_img=150)
    ),
)
