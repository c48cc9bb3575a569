"""Whole detectors and Mask2Former as graphs."""

import pytest
import small_heads as heads
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmvitcompress.analysis.inference import run_network
from mmvitcompress.deploy import (
    TARGETS,
    DeployedNetwork,
    GraphSpec,
    evaluation,
    export_program,
)
from mmvitcompress.errors import ConfigError

pytestmark = pytest.mark.slow

SHAPE = (64, 96)


def segmentor():
    return ConfigDict(
        type='EncoderDecoder',
        backbone=heads.BACKBONE,
        neck=heads.PYRAMID,
        decode_head=heads.mask2former_head(
            [32] * 4, 5, layers=2, num_classes=5
        ),
        test_cfg=ConfigDict(mode='whole'),
    )


def retinanet():
    return ConfigDict(
        type='RetinaNet',
        backbone=heads.BACKBONE,
        neck=[heads.PYRAMID, heads.fpn([32] * 4)],
        bbox_head=dict(
            type='RetinaHead', num_classes=5, in_channels=16, feat_channels=16
        ),
        test_cfg=ConfigDict(nms_pre=100),
    )


MODELS_OF = {
    'mmseg': segmentor,
    'mmdet': lambda: heads.mask2former(
        heads.BACKBONE, heads.PYRAMID, [32] * 4, 5, layers=2
    ),
}


def build(scope, config):
    init_default_scope(scope)
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(config))
    model.init_weights()
    for parameter in model.backbone.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.mark.parametrize('scope', MODELS_OF)
@torch.no_grad()
def test_mask2former_as_a_graph(scope):
    model = build(scope, MODELS_OF[scope]())
    network = DeployedNetwork(model, 'all', GraphSpec(SHAPE))
    images = torch.randn(3, 3, *SHAPE)
    classes, masks = run_network(model, images)
    found = network(images)
    expected = classes[-1], masks[-1]
    for ours, theirs in zip(found, expected, strict=True):
        scale = theirs.abs().max()
        torch.testing.assert_close(ours / scale, theirs / scale)
    # the model's own pixel decoder is as it was
    assert run_network(model, images)[0][-1].equal(classes[-1])
    program = export_program(network).module()
    for ours, theirs in zip(program(images), found, strict=True):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(ConfigError, match='is not possible for'):
        DeployedNetwork(model, 'all', GraphSpec(SHAPE, 'size'))


@torch.no_grad()
def test_what_is_around_mask2former_predicts_the_same():
    model = build('mmseg', segmentor())
    network = DeployedNetwork(model, 'all', GraphSpec(SHAPE))
    stand_in = evaluation.with_graph(model, 'all', network)
    images = torch.randn(2, 3, *SHAPE)
    metas = [dict(img_shape=SHAPE, ori_shape=SHAPE, pad_shape=SHAPE)] * 2
    found, expected = (
        m.encode_decode(images, metas) for m in (stand_in, model)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (expected.std((2, 3)) > 1e-3).all()  # no map is flat


@pytest.mark.parametrize('name', ['onnx', 'openvino'])
def test_mask2former_in_other_runtimes(name, tmp_path):
    for package in TARGETS[name].packages:
        pytest.importorskip(package)
    model = build('mmseg', segmentor())
    network = DeployedNetwork(model, 'all', GraphSpec(SHAPE))
    target = TARGETS[name]
    path = tmp_path / f'net{target.suffix}'
    # as many images as wanted, each with its own masks
    assert target.write(network, path) < 1e-4


@torch.no_grad()
def test_one_stage_detectors_are_graphs_of_raw_outputs():
    model = build('mmdet', retinanet())
    network = DeployedNetwork(model, 'all', GraphSpec(SHAPE))
    images = torch.randn(2, 3, *SHAPE)
    scores, boxes = run_network(model, images)
    found = export_program(network).module()(images)
    for ours, theirs in zip(found, [*scores, *boxes], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('model', ['two stages', 'queries'])
def test_other_detectors_are_refused_by_name(model):
    if model == 'two stages':
        config = heads.mask_rcnn(
            heads.BACKBONE,
            [heads.PYRAMID, heads.fpn([32] * 4)],
            5,
            proposals=9,
            most=3,
        )
        words = 'MaskRCNN.*regions that the RPN finds.*part=.encoder'
        with pytest.raises(ConfigError, match=words):
            DeployedNetwork(build('mmdet', config), 'all', GraphSpec(SHAPE))
        return
    deformable = nn.Module()
    deformable.backbone = deformable.decoder = nn.Identity()
    deformable.bbox_head = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match='no head that gives raw outputs'):
        DeployedNetwork(deformable, 'all', GraphSpec(SHAPE))
