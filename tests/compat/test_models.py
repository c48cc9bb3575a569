"""Detectors and segmenters of OpenMMLab learn and predict on the stand-in."""

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS as DET_MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData
from mmseg.registry import MODELS as SEG_MODELS
from mmseg.structures import SegDataSample

CLASSES = 3
SIZE = 64

RESNET = dict(
    type='mmdet.ResNet',
    depth=50,
    base_channels=8,
    num_stages=4,
    out_indices=(0, 1, 2, 3),
    norm_cfg=dict(type='BN'),
)
CHANNELS = [32, 64, 128, 256]

ASSIGNER = dict(
    type='mmdet.MaxIoUAssigner',
    pos_iou_thr=0.5,
    neg_iou_thr=0.3,
    min_pos_iou=0.3,
    ignore_iof_thr=-1,
)
PROPOSALS = dict(
    nms_pre=200,
    max_per_img=40,
    nms=dict(type='nms', iou_threshold=0.7),
    min_bbox_size=0,
)
BOX_CODER = dict(
    type='DeltaXYWHBBoxCoder',
    target_means=[0.0] * 4,
    target_stds=[0.1, 0.1, 0.2, 0.2],
)
CROSS_ENTROPY = dict(type='CrossEntropyLoss', loss_weight=1.0)


def sampler(num, add_boxes):
    return dict(
        type='RandomSampler',
        num=num,
        pos_fraction=0.5,
        neg_pos_ub=-1,
        add_gt_as_proposals=add_boxes,
    )


def roi_extractor(size):
    return dict(
        type='SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=size, sampling_ratio=0),
        out_channels=16,
        featmap_strides=[4, 8, 16, 32],
    )


def mask_rcnn(test_nms):
    return dict(
        type='MaskRCNN',
        data_preprocessor=dict(
            type='DetDataPreprocessor', pad_size_divisor=32, pad_mask=True
        ),
        backbone=RESNET,
        neck=dict(
            type='FPN', in_channels=CHANNELS, out_channels=16, num_outs=5
        ),
        rpn_head=dict(
            type='RPNHead',
            in_channels=16,
            feat_channels=16,
            anchor_generator=dict(
                type='AnchorGenerator',
                scales=[4],
                ratios=[0.5, 1.0, 2.0],
                strides=[4, 8, 16, 32, 64],
            ),
            bbox_coder=BOX_CODER,
            loss_cls=dict(use_sigmoid=True, **CROSS_ENTROPY),
            loss_bbox=dict(type='L1Loss'),
        ),
        roi_head=dict(
            type='StandardRoIHead',
            bbox_roi_extractor=roi_extractor(7),
            bbox_head=dict(
                type='Shared2FCBBoxHead',
                in_channels=16,
                fc_out_channels=32,
                roi_feat_size=7,
                num_classes=CLASSES,
                bbox_coder=BOX_CODER,
                loss_cls=CROSS_ENTROPY,
                loss_bbox=dict(type='L1Loss'),
            ),
            mask_roi_extractor=roi_extractor(14),
            mask_head=dict(
                type='FCNMaskHead',
                num_convs=1,
                in_channels=16,
                conv_out_channels=16,
                num_classes=CLASSES,
                loss_mask=dict(use_mask=True, **CROSS_ENTROPY),
            ),
        ),
        train_cfg=dict(
            rpn=dict(
                assigner=ASSIGNER,
                sampler=sampler(64, add_boxes=False),
                allowed_border=-1,
                pos_weight=-1,
            ),
            rpn_proposal=PROPOSALS,
            rcnn=dict(
                assigner=ASSIGNER,
                sampler=sampler(32, add_boxes=True),
                mask_size=28,
                pos_weight=-1,
            ),
        ),
        test_cfg=dict(
            rpn=PROPOSALS,
            rcnn=dict(
                score_thr=0.05,
                nms=dict(type=test_nms, iou_threshold=0.5),
                max_per_img=20,
                mask_thr_binary=0.5,
            ),
        ),
    )


def mask2former_head(kind, **kwargs):
    layer = dict(
        self_attn_cfg=dict(embed_dims=16, num_heads=2, batch_first=True),
        ffn_cfg=dict(embed_dims=16, feedforward_channels=32),
    )
    positions = dict(num_feats=8, normalize=True)
    return dict(
        type=kind,
        in_channels=CHANNELS,
        strides=[4, 8, 16, 32],
        feat_channels=16,
        out_channels=16,
        num_queries=10,
        num_transformer_feat_level=3,
        pixel_decoder=dict(
            type='mmdet.MSDeformAttnPixelDecoder',
            num_outs=3,
            norm_cfg=dict(type='GN', num_groups=4),
            act_cfg=dict(type='ReLU'),
            encoder=dict(
                num_layers=2,
                layer_cfg=dict(
                    self_attn_cfg=dict(
                        embed_dims=16,
                        num_heads=2,
                        num_levels=3,
                        num_points=4,
                        batch_first=True,
                    ),
                    ffn_cfg=dict(embed_dims=16, feedforward_channels=32),
                ),
            ),
            positional_encoding=positions,
        ),
        positional_encoding=positions,
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=2,
            layer_cfg=dict(
                cross_attn_cfg=dict(
                    embed_dims=16, num_heads=2, batch_first=True
                ),
                **layer,
            ),
        ),
        loss_cls=dict(
            type='mmdet.CrossEntropyLoss',
            loss_weight=2.0,
            class_weight=[1.0] * CLASSES + [0.1],
        ),
        loss_mask=dict(
            type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=5.0
        ),
        loss_dice=dict(
            type='mmdet.DiceLoss', naive_dice=True, eps=1.0, loss_weight=5.0
        ),
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


def mask2former_instances():
    return dict(
        type='Mask2Former',
        data_preprocessor=dict(
            type='DetDataPreprocessor', pad_size_divisor=32, pad_mask=True
        ),
        backbone=RESNET,
        panoptic_head=mask2former_head(
            'Mask2FormerHead', num_things_classes=CLASSES, num_stuff_classes=0
        ),
        panoptic_fusion_head=dict(
            type='MaskFormerFusionHead',
            num_things_classes=CLASSES,
            num_stuff_classes=0,
        ),
        train_cfg=MATCHING,
        test_cfg=dict(
            panoptic_on=False,
            semantic_on=False,
            instance_on=True,
            max_per_image=10,
            iou_thr=0.8,
            filter_low_score=True,
        ),
    )


def mask2former_semantic():
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            size=(SIZE, SIZE),
            pad_val=0,
            seg_pad_val=255,
        ),
        backbone=RESNET,
        decode_head=mask2former_head(
            'Mask2FormerHead',
            num_classes=CLASSES,
            align_corners=False,
            train_cfg=MATCHING,
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )


def squares(seed=0):
    """An image of three filled squares: pixels, boxes, labels, masks."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (3, SIZE, SIZE))
    masks = np.zeros((3, SIZE, SIZE), np.uint8)
    boxes = []
    for label, (x, y) in enumerate(((4, 4), (36, 8), (16, 38))):
        box = (x, y, x + 22, y + 18)
        masks[label, y : y + 18, x : x + 22] = 1
        image[label, y : y + 18, x : x + 22] += 150
        boxes.append(box)
    return (
        torch.from_numpy(image).byte(),
        torch.tensor(boxes, dtype=torch.float32),
        masks,
    )


def detection_batch():
    batch = dict(inputs=[], data_samples=[])
    for seed in range(2):
        image, boxes, masks = squares(seed)
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(SIZE, SIZE),
                ori_shape=(SIZE, SIZE),
                scale_factor=(1.0, 1.0),
                img_id=seed,
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes,
            labels=torch.arange(3),
            masks=BitmapMasks(masks, SIZE, SIZE),
        )
        sample.ignored_instances = InstanceData(bboxes=boxes[:0])
        batch['inputs'].append(image)
        batch['data_samples'].append(sample)
    return batch


def segmentation_batch():
    batch = dict(inputs=[], data_samples=[])
    for seed in range(2):
        image, _, masks = squares(seed)
        labels = np.full((SIZE, SIZE), 255)
        for label, mask in enumerate(masks):
            labels[mask > 0] = label
        sample = SegDataSample(
            metainfo=dict(
                img_shape=(SIZE, SIZE),
                ori_shape=(SIZE, SIZE),
                pad_shape=(SIZE, SIZE),
            )
        )
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(labels)[None])
        batch['inputs'].append(image)
        batch['data_samples'].append(sample)
    return batch


def build(scope, config):
    torch.manual_seed(0)
    registry = {'mmdet': DET_MODELS, 'mmseg': SEG_MODELS}[scope]
    with DefaultScope.overwrite_default_scope(scope):
        model = registry.build(ConfigDict(config))
        model.init_weights()
    return model


def losses(model, batch, dtype=None):
    data = model.data_preprocessor(batch, training=True)
    with torch.autocast('cpu', dtype or torch.bfloat16, enabled=bool(dtype)):
        output = model(**data, mode='loss')
    return model.parse_losses(output)[0]


def check_learns(model, batch, dtype=None):
    """A few steps lower the loss; every parameter has a finite gradient."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    history = []
    for _ in range(6):
        loss = losses(model.train(), batch, dtype)
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        optimizer.step()
        history.append(loss.item())
    assert min(history[3:]) < history[0]


def predict(model, batch):
    model.eval()
    data = model.data_preprocessor(batch, training=False)
    with torch.no_grad():
        return model(**data, mode='predict')


@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
@pytest.mark.parametrize('test_nms', ['nms', 'soft_nms'])
def test_mask_rcnn(test_nms, dtype):
    model = build('mmdet', mask_rcnn(test_nms))
    batch = detection_batch()
    check_learns(model, batch, dtype)
    for sample in predict(model, batch):
        found = sample.pred_instances
        assert 0 < len(found) <= 20
        assert found.masks.shape == (len(found), SIZE, SIZE)
        assert found.scores.isfinite().all()
        assert (found.scores.diff() <= 0).all()


@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
def test_mask2former_of_mmdet(dtype):
    model = build('mmdet', mask2former_instances())
    batch = detection_batch()
    check_learns(model, batch, dtype)
    for sample in predict(model, batch):
        found = sample.pred_instances
        assert 0 < len(found) <= 10
        assert found.masks.shape == (len(found), SIZE, SIZE)


def test_mask2former_of_mmseg():
    model = build('mmseg', mask2former_semantic())
    batch = segmentation_batch()
    check_learns(model, batch)
    for sample in predict(model, batch):
        labels = sample.pred_sem_seg.data
        assert labels.shape == (1, SIZE, SIZE)
        assert set(labels.unique().tolist()) <= set(range(CLASSES))
