# Mask R-CNN on DeiT-Small. The four outputs go through the plain-ViT pyramid
# of XCiT (x4, x2, x1, x1/2) and an FPN, built on merged tokens and restored
# last; RPN and RoI heads are mmdet's for COCO.
strides = [4, 8, 16, 32]


def roi_extractor(size):
    return dict(
        type='SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=size, sampling_ratio=0),
        out_channels=256,
        featmap_strides=strides,
    )


def assigner(positive, negative):
    return dict(
        type='MaxIoUAssigner',
        pos_iou_thr=positive,
        neg_iou_thr=negative,
        min_pos_iou=negative,
        match_low_quality=True,
        ignore_iof_thr=-1,
    )


def sampler(num, positive, add_gt):
    return dict(
        type='RandomSampler',
        num=num,
        pos_fraction=positive,
        neg_pos_ub=-1,
        add_gt_as_proposals=add_gt,
    )


def proposals(before_nms):
    return dict(
        nms_pre=before_nms,
        max_per_img=1000,
        nms=dict(type='nms', iou_threshold=0.7),
        min_bbox_size=0,
    )


model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_mask=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='mmvitcompress.CompressedViT',
        arch='deit_small',
        img_size=(800, 1333),
        out_indices=(2, 5, 8, 11),  # blocks 3, 6, 9 and 12
        drop_path_rate=0.1,
        restore=False,
    ),
    neck=dict(
        type='mmvitcompress.UnmergeFPN',
        embed_dim=384,
        out_channels=256,
        num_outs=5,
        rescales=[4, 2, 1, 0.5],
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
    rpn_head=dict(
        type='RPNHead',
        in_channels=256,
        feat_channels=256,
        anchor_generator=dict(
            type='AnchorGenerator',
            scales=[8],
            ratios=[0.5, 1.0, 2.0],
            strides=[*strides, 64],
        ),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[1.0, 1.0, 1.0, 1.0],
        ),
        loss_cls=dict(
            type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0
        ),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
    ),
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=roi_extractor(7),
        bbox_head=dict(
            type='Shared2FCBBoxHead',
            in_channels=256,
            fc_out_channels=1024,
            roi_feat_size=7,
            num_classes=80,
            bbox_coder=dict(
                type='DeltaXYWHBBoxCoder',
                target_means=[0.0, 0.0, 0.0, 0.0],
                target_stds=[0.1, 0.1, 0.2, 0.2],
            ),
            reg_class_agnostic=False,
            loss_cls=dict(
                type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0
            ),
            loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        ),
        mask_roi_extractor=roi_extractor(14),
        mask_head=dict(
            type='FCNMaskHead',
            num_convs=4,
            in_channels=256,
            conv_out_channels=256,
            num_classes=80,
            loss_mask=dict(
                type='CrossEntropyLoss', use_mask=True, loss_weight=1.0
            ),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=assigner(0.7, 0.3),
            sampler=sampler(256, 0.5, add_gt=False),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=proposals(2000),
        rcnn=dict(
            assigner=assigner(0.5, 0.5),
            sampler=sampler(512, 0.25, add_gt=True),
            mask_size=28,
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=proposals(1000),
        rcnn=dict(
            score_thr=0.05,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=100,
            mask_thr_binary=0.5,
        ),
    ),
)
