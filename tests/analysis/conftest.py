"""Small models of every kind that is counted and timed."""

import pytest
import small_heads as heads
from mmengine.config import Config

WIDTH = 16  # of every head


def image_classifier():
    return dict(
        default_scope='mmvitcompress',
        model=dict(
            type='ImageClassifier',
            backbone=dict(heads.BACKBONE),
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


def detector(stages=1):
    """Mask R-CNN; with more stages, the cascaded one."""
    neck = [heads.PYRAMID, heads.fpn([32] * 4)]
    model = heads.mask_rcnn(
        dict(heads.BACKBONE), neck, 5, proposals=50, most=10
    )
    if stages > 1:
        model['type'] = 'CascadeRCNN'
        model['roi_head'].update(
            type='CascadeRoIHead',
            num_stages=stages,
            stage_loss_weights=[1] * stages,
            bbox_head=[
                heads.box_head(5, reg_class_agnostic=True)
                for _ in range(stages)
            ],
        )
        # what trains differs from stage to stage
        model['train_cfg'] = None
    return dict(
        default_scope='mmdet',
        test_pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(90, 60), keep_ratio=True),
            dict(type='PackDetInputs'),
        ],
        model=model,
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
            backbone=dict(heads.BACKBONE),
            neck=heads.PYRAMID,
            decode_head=heads.mask2former_head(
                [32] * 4, 5, layers=3, num_classes=5
            ),
            test_cfg=dict(mode='whole'),
        ),
    )


def mask2former_det():
    return dict(
        default_scope='mmdet',
        model=heads.mask2former(
            dict(heads.BACKBONE), heads.PYRAMID, [32] * 4, 5, layers=3
        ),
    )


CONFIGS = {
    'image_classifier': image_classifier,
    'upernet': upernet,
    'mask_rcnn': detector,
    'cascade_mask_rcnn': lambda: detector(stages=3),
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
