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
from small_heads import (
    MATCHING,
    fpn,
    mask2former,
    mask2former_head,
    mask_rcnn,
)

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
            CHANNELS,
            CLASSES,
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
    model = build(
        'mmdet', mask_rcnn(RESNET, fpn(CHANNELS), CLASSES, nms=test_nms)
    )
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
    model = build('mmdet', mask2former(RESNET, None, CHANNELS, CLASSES))
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
