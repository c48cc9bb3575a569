"""A Swin in training: gradients, recomputation, frozen stages, UperNet."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from swins import MERGES, SMALL, small

from mmvitcompress.registry import MODELS

pytestmark = pytest.mark.slow


def test_training_after_inference_mode():
    model = small('atme')
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        model(x)
    model.train()(x)[-1].sum().backward()
    assert not [key for key in model.state_dict() if 'layout' in key]


@pytest.mark.parametrize('stages', [-1, 0, 2, 3])
def test_frozen_stages(stages):
    """The patch merging after a frozen stage is frozen, too, as in mmseg."""
    model = small('atme', frozen_stages=stages, drop_path_rate=0.5).train()
    frozen = {
        name.split('.')[0] + '.' + name.split('.')[1]
        if name.startswith('layers')
        else name.split('.')[0]
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad and 'downsample' not in name
    }
    for i, stage in enumerate(model.layers[1:], start=1):
        merging = stage.downsample
        assert merging.reduction.weight.requires_grad == (i > stages)
        assert merging.training == (i > stages or stages < 1)
    expected = {f'layers.{i}' for i in range(stages)}
    expected |= {f'norm{i}' for i in range(stages)}
    expected |= {'patch_embed'} if stages >= 0 else set()
    expected |= {'token_merging'} if stages == 3 else set()
    assert frozen == expected
    for i, stage in enumerate(model.layers):
        assert stage.blocks[1].drop_path.training == (i >= stages)


def test_layer_depths():
    model = small('atme')
    depths = {
        name: model.get_layer_depth(f'backbone.{name}', 'backbone.')
        for name, _ in model.named_parameters()
    }
    assert {total for _, total in depths.values()} == {12}
    assert depths['patch_embed.norm.bias'][0] == 0
    assert depths['layers.0.blocks.1.norm1.bias'][0] == 2
    assert depths['layers.2.downsample.norm.bias'][0] == 5
    assert depths['token_merging.1.fuse.weight'][0] == 6
    assert depths['layers.2.blocks.1.norm1.bias'][0] == 6
    assert depths['norm0.weight'][0] == 11
    assert model.get_layer_depth('head.fc.bias', 'backbone.') == (11, 12)


@pytest.mark.parametrize('method', ['dense', 'atme'])
def test_upernet(method):
    from mmseg.structures import SegDataSample

    init_default_scope('mmseg')
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)),
        backbone=dict(
            type='mmvitcompress.CompressedSwin',
            arch=SMALL,
            token_merging=MERGES[method],
            restore=False,
        ),
        neck=dict(type='mmvitcompress.UnmergeUpsample'),
        decode_head=dict(
            type='UPerHead',
            in_channels=[8, 16, 32, 64],
            in_index=[0, 1, 2, 3],
            channels=16,
            num_classes=3,
            norm_cfg=dict(type='BN'),
            loss_decode=dict(type='CrossEntropyLoss'),
        ),
        test_cfg=dict(mode='whole'),
    )
    model = MODELS.build(ConfigDict(model)).train()
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, 64, 64))),
        metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)),
    )
    x = torch.randn(2, 3, 64, 64)
    losses = model.loss(x, [sample, sample])
    losses['decode.loss_ce'].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    predicted = model.eval().predict(x, [sample, sample])[0]
    assert predicted.pred_sem_seg.shape == (64, 64)
