"""Small heads and detectors of OpenMMLab, for any backbone and neck.

All are 16 channels wide, on maps of four strides.
"""

BACKBONE = dict(
    type='mmvitcompress.CompressedViT',
    arch=dict(
        embed_dim=32, depth=4, num_heads=2, head_dim=16, img_size=(64, 64)
    ),
    token_merging=dict(layers=(2, 3)),
)
PYRAMID = dict(
    type='mmseg.Feature2Pyramid',
    embed_dim=32,
    rescales=[4, 2, 1, 0.5],
    norm_cfg=dict(type='BN'),
)
STRIDES = [4, 8, 16, 32]
BOX_CODER = dict(
    type='mmdet.DeltaXYWHBBoxCoder',
    target_means=[0.0] * 4,
    target_stds=[0.1, 0.1, 0.2, 0.2],
)
POSITIONS = dict(num_feats=8, normalize=True)


def fpn(channels):
    return dict(
        type='mmdet.FPN', in_channels=channels, out_channels=16, num_outs=5
    )


def mask_rcnn(
    backbone,
    neck,
    classes,
    proposals=40,
    most=20,
    nms='nms',
    least_score=0.05,
    strides=STRIDES,
):
    """Mask R-CNN; ``most`` objects of ``proposals`` boxes are found."""
    chosen = dict(
        nms_pre=200,
        max_per_img=proposals,
        nms=dict(type='nms', iou_threshold=0.7),
        min_bbox_size=0,
    )
    return dict(
        type='MaskRCNN',
        data_preprocessor=dict(
            type='DetDataPreprocessor', pad_size_divisor=32, pad_mask=True
        ),
        backbone=backbone,
        neck=neck,
        rpn_head=dict(
            type='RPNHead',
            in_channels=16,
            feat_channels=16,
            anchor_generator=dict(
                type='AnchorGenerator',
                scales=[4],
                ratios=[0.5, 1.0, 2.0],
                strides=[*strides, 2 * strides[-1]],
            ),
            bbox_coder=BOX_CODER,
        ),
        roi_head=dict(
            type='StandardRoIHead',
            bbox_roi_extractor=_regions(7, strides),
            bbox_head=box_head(classes),
            mask_roi_extractor=_regions(14, strides),
            mask_head=dict(
                type='FCNMaskHead',
                num_convs=1,
                in_channels=16,
                conv_out_channels=16,
                num_classes=classes,
            ),
        ),
        train_cfg=dict(
            rpn=_sampled(64, add_boxes=False, allowed_border=-1),
            rpn_proposal=chosen,
            rcnn=_sampled(32, add_boxes=True, mask_size=28),
        ),
        test_cfg=dict(
            rpn=chosen,
            rcnn=dict(
                score_thr=least_score,
                nms=dict(type=nms, iou_threshold=0.5),
                max_per_img=most,
                mask_thr_binary=0.5,
            ),
        ),
    )


def box_head(classes, **kwargs):
    return dict(
        type='Shared2FCBBoxHead',
        in_channels=16,
        fc_out_channels=32,
        roi_feat_size=7,
        num_classes=classes,
        bbox_coder=BOX_CODER,
        **kwargs,
    )


def _regions(size, strides):
    return dict(
        type='SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=size, sampling_ratio=0),
        out_channels=16,
        featmap_strides=strides,
    )


def _sampled(count, add_boxes, **kwargs):
    return dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.3,
            min_pos_iou=0.3,
            ignore_iof_thr=-1,
        ),
        sampler=dict(
            type='RandomSampler',
            num=count,
            pos_fraction=0.5,
            neg_pos_ub=-1,
            add_gt_as_proposals=add_boxes,
        ),
        pos_weight=-1,
        debug=False,
        **kwargs,
    )


MATCHING = dict(
    num_points=256,
    oversample_ratio=3.0,
    importance_sample_ratio=0.75,
    assigner=dict(
        type='mmdet.HungarianAssigner',
        match_costs=[
            dict(type='mmdet.ClassificationCost', weight=2.0),
            dict(
                type='mmdet.CrossEntropyLossCost', weight=5.0, use_sigmoid=True
            ),
            dict(type='mmdet.DiceCost', weight=5.0, pred_act=True, eps=1.0),
        ],
    ),
    sampler=dict(type='mmdet.MaskPseudoSampler'),
)


def mask2former_head(channels, classes, strides=STRIDES, layers=2, **kwargs):
    """Mask2Former's head, of mmdet or, with ``num_classes``, of mmseg."""
    attention = dict(embed_dims=16, num_heads=2, batch_first=True)
    ffn = dict(embed_dims=16, feedforward_channels=32, num_fcs=2)
    entropy = dict(type='mmdet.CrossEntropyLoss')
    return dict(
        type='Mask2FormerHead',
        in_channels=channels,
        strides=strides,
        feat_channels=16,
        out_channels=16,
        num_queries=7,
        num_transformer_feat_level=3,
        enforce_decoder_input_project=False,
        positional_encoding=POSITIONS,
        pixel_decoder=dict(
            type='mmdet.MSDeformAttnPixelDecoder',
            num_outs=3,
            norm_cfg=dict(type='GN', num_groups=4),
            act_cfg=dict(type='ReLU'),
            positional_encoding=POSITIONS,
            encoder=dict(
                num_layers=2,
                layer_cfg=dict(
                    self_attn_cfg=dict(
                        num_levels=3, num_points=4, **attention
                    ),
                    ffn_cfg=ffn,
                ),
            ),
        ),
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=layers,
            layer_cfg=dict(
                self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn
            ),
        ),
        loss_cls=dict(
            loss_weight=2.0, class_weight=[1.0] * classes + [0.1], **entropy
        ),
        loss_mask=dict(use_sigmoid=True, loss_weight=5.0, **entropy),
        loss_dice=dict(
            type='mmdet.DiceLoss',
            use_sigmoid=True,
            activate=True,
            naive_dice=True,
            eps=1.0,
            loss_weight=5.0,
        ),
        **kwargs,
    )


def mask2former(backbone, neck, channels, classes, most=10, **kwargs):
    """mmdet's Mask2Former for instances, of which it finds ``most``."""
    things = dict(num_things_classes=classes, num_stuff_classes=0)
    return dict(
        type='Mask2Former',
        data_preprocessor=dict(
            type='DetDataPreprocessor', pad_size_divisor=32, pad_mask=True
        ),
        backbone=backbone,
        neck=neck,
        panoptic_head=mask2former_head(channels, classes, **things, **kwargs),
        panoptic_fusion_head=dict(
            type='MaskFormerFusionHead', loss_panoptic=None, **things
        ),
        train_cfg=MATCHING,
        test_cfg=dict(
            panoptic_on=False,
            semantic_on=False,
            instance_on=True,
            max_per_image=most,
            iou_thr=0.8,
            filter_low_score=True,
        ),
    )
