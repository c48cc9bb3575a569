"""Small models of every kind that is counted and timed."""

import copy

import pytest
from mmengine.config import Config

WIDTH = 16  # of every head
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
BOX_CODER = dict(
    type='DeltaXYWHBBoxCoder',
    target_means=[0.0] * 4,
    target_stds=[0.1, 0.1, 0.2, 0.2],
)


def image_classifier():
    return dict(
        default_scope='mmvitcompress',
        model=dict(
            type='ImageClassifier',
            backbone=dict(BACKBONE),
            num_classes=10,
        ),
    )


def upernet():
    """Upstream's UPerNet on upstream's ViT."""
    return dict(
        default_scope='mmseg',
        crop_size=(64, 96),
        model=dict(
            type='EncoderDecoder',
            pretrained='nowhere.pth',
            backbone=dict(
                type='VisionTransformer',
                img_size=(64, 96),
                embed_dims=32,
                num_layers=4,
                num_heads=2,
                out_indices=(0, 1, 2, 3),
            ),
            neck=dict(
                type='MultiLevelNeck',
                in_channels=[32] * 4,
                out_channels=WIDTH,
                scales=[4, 2, 1, 0.5],
            ),
            decode_head=dict(
                type='UPerHead',
                in_channels=[WIDTH] * 4,
                in_index=[0, 1, 2, 3],
                channels=WIDTH,
                num_classes=5,
                norm_cfg=dict(type='SyncBN'),
            ),
            auxiliary_head=dict(
                type='FCNHead',
                in_channels=WIDTH,
                in_index=3,
                channels=8,
                num_convs=1,
                num_classes=5,
            ),
            test_cfg=dict(mode='whole'),
        ),
    )


def _regions(size):
    return dict(
        type='SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=size, sampling_ratio=0),
        out_channels=WIDTH,
        featmap_strides=[4, 8, 16, 32],
    )


def mask_rcnn(stages=1):
    """Mask R-CNN; with more stages, the cascaded one."""
    box_head = dict(
        type='Shared2FCBBoxHead',
        in_channels=WIDTH,
        fc_out_channels=32,
        roi_feat_size=7,
        num_classes=5,
        bbox_coder=BOX_CODER,
        reg_class_agnostic=stages > 1,
    )
    roi_head = dict(
        type='StandardRoIHead',
        bbox_roi_extractor=_regions(7),
        bbox_head=box_head,
        mask_roi_extractor=_regions(14),
        mask_head=dict(
            type='FCNMaskHead',
            num_convs=1,
            in_channels=WIDTH,
            conv_out_channels=WIDTH,
            num_classes=5,
        ),
    )
    if stages > 1:
        roi_head.update(
            type='CascadeRoIHead',
            num_stages=stages,
            stage_loss_weights=[1] * stages,
            bbox_head=[copy.deepcopy(box_head) for _ in range(stages)],
        )
    return dict(
        default_scope='mmdet',
        test_pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(90, 60), keep_ratio=True),
            dict(type='PackDetInputs'),
        ],
        model=dict(
            type='MaskRCNN' if stages == 1 else 'CascadeRCNN',
            data_preprocessor=dict(
                type='DetDataPreprocessor', pad_size_divisor=32
            ),
            backbone=dict(BACKBONE),
            neck=[
                PYRAMID,
                dict(
                    type='FPN',
                    in_channels=[32] * 4,
                    out_channels=WIDTH,
                    num_outs=5,
                ),
            ],
            rpn_head=dict(
                type='RPNHead',
                in_channels=WIDTH,
                feat_channels=WIDTH,
                anchor_generator=dict(
                    type='AnchorGenerator',
                    scales=[8],
                    ratios=[0.5, 1.0, 2.0],
                    strides=[4, 8, 16, 32, 64],
                ),
                bbox_coder=BOX_CODER,
            ),
            roi_head=roi_head,
            train_cfg=None,
            test_cfg=dict(
                rpn=dict(
                    nms_pre=200,
                    max_per_img=50,
                    nms=dict(type='nms', iou_threshold=0.7),
                    min_bbox_size=0,
                ),
                rcnn=dict(
                    score_thr=0.05,
                    nms=dict(type='nms', iou_threshold=0.5),
                    max_per_img=10,
                    mask_thr_binary=0.5,
                ),
            ),
        ),
    )


def _mask2former_head(**kwargs):
    attention = dict(embed_dims=WIDTH, num_heads=2, batch_first=True)
    ffn = dict(embed_dims=WIDTH, feedforward_channels=32, num_fcs=2)
    positions = dict(num_feats=WIDTH // 2, normalize=True)
    loss = dict(type='mmdet.CrossEntropyLoss')
    return dict(
        type='Mask2FormerHead',
        in_channels=[32] * 4,
        strides=[4, 8, 16, 32],
        feat_channels=WIDTH,
        out_channels=WIDTH,
        num_queries=7,
        num_transformer_feat_level=3,
        enforce_decoder_input_project=False,
        positional_encoding=positions,
        pixel_decoder=dict(
            type='mmdet.MSDeformAttnPixelDecoder',
            num_outs=3,
            norm_cfg=dict(type='GN', num_groups=8),
            act_cfg=dict(type='ReLU'),
            positional_encoding=positions,
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
            num_layers=3,
            layer_cfg=dict(
                self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn
            ),
        ),
        loss_cls=loss | dict(class_weight=[1.0] * 6),
        loss_mask=loss | dict(use_sigmoid=True),
        loss_dice=dict(type='mmdet.DiceLoss'),
        **kwargs,
    )


def mask2former_seg():
    return dict(
        default_scope='mmseg',
        crop_size=(60, 90),
        model=dict(
            type='EncoderDecoder',
            data_preprocessor=dict(
                type='SegDataPreProcessor',
                size=(60, 90),
                test_cfg=dict(size_divisor=32),
            ),
            backbone=dict(BACKBONE),
            neck=PYRAMID,
            decode_head=_mask2former_head(num_classes=5),
            test_cfg=dict(mode='whole'),
        ),
    )


def mask2former_det():
    return dict(
        default_scope='mmdet',
        model=dict(
            type='Mask2Former',
            data_preprocessor=dict(
                type='DetDataPreprocessor', pad_size_divisor=32
            ),
            backbone=dict(BACKBONE),
            neck=PYRAMID,
            panoptic_head=_mask2former_head(
                num_things_classes=5, num_stuff_classes=0
            ),
            panoptic_fusion_head=dict(
                type='MaskFormerFusionHead',
                num_things_classes=5,
                num_stuff_classes=0,
                loss_panoptic=None,
            ),
            test_cfg=dict(
                panoptic_on=False,
                semantic_on=False,
                instance_on=True,
                max_per_image=10,
            ),
        ),
    )


CONFIGS = {
    'image_classifier': image_classifier,
    'upernet': upernet,
    'mask_rcnn': mask_rcnn,
    'cascade_mask_rcnn': lambda: mask_rcnn(stages=3),
    'mask2former_seg': mask2former_seg,
    'mask2former_det': mask2former_det,
}


@pytest.fixture
def make_config():
    """A function from the name of a model to its config."""
    return lambda name: Config(CONFIGS[name]())


@pytest.fixture(params=CONFIGS)
def config(request, make_config):
    """The config of every model in turn."""
    return make_config(request.param)
