"""The CASCADE decoder, its head and losses."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.heads.cascade import (
    AttentionGate,
    CascadeDecoder,
    ChannelAttention,
    SpatialAttention,
)
from mmvitcompress.models.losses.segmentation import (
    batch_dice_loss,
    structure_loss,
)
from mmvitcompress.registry import MODELS

ROOT = Path(__file__).parents[2]
WIDTHS = (8, 12, 16, 20)


def head(**kwargs):
    kwargs = {
        **dict(in_channels=[10] * 4, widths=WIDTHS, num_classes=3),
        **kwargs,
    }
    return MODELS.build(dict(type='mmvitcompress.CascadeDecodeHead', **kwargs))


def maps(sizes=(16, 8, 4, 2), channels=10, batch=2):
    return [torch.randn(batch, channels, size, size) for size in sizes]


def samples(labels):
    return [SegDataSample(gt_sem_seg=PixelData(data=x[None])) for x in labels]


# -- decoder ----------------------------------------------------------------


def test_as_large_as_the_published_decoder():
    """10 421 899 parameters has the authors' own, counted on their code."""
    widths = (64, 128, 320, 512)
    decoder = CascadeDecoder(widths, widths)
    assert sum(p.numel() for p in decoder.parameters()) == 10_421_899


def zero(module):
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


@pytest.mark.parametrize(
    'kind', [lambda: ChannelAttention(32), SpatialAttention]
)
def test_attention_that_knows_nothing_halves(kind):
    x = torch.randn(2, 32, 5, 7)
    torch.testing.assert_close(zero(kind())(x), x / 2)


def test_channel_attention_by_hand():
    attention = ChannelAttention(2)
    nn.init.constant_(attention.mlp[0].weight, 1.0)
    nn.init.constant_(attention.mlp[2].weight, 0.5)
    x = torch.tensor([[1.0, 3.0], [-2.0, 0.0]]).view(1, 2, 1, 2)
    # means 2 and -1, maxima 3 and 0: 0.5 * relu(1) + 0.5 * relu(3)
    weight = torch.tensor(2.0).sigmoid()
    torch.testing.assert_close(attention(x), x * weight)


def test_spatial_attention_sees_mean_and_maximum():
    attention = zero(SpatialAttention())
    attention.conv.weight.data[0, 0, 3, 3] = 1.0
    attention.conv.weight.data[0, 1, 3, 3] = 10.0
    x = torch.randn(1, 6, 3, 4)
    weight = (x.mean(1) + 10 * x.max(1).values).sigmoid()
    torch.testing.assert_close(attention(x), x * weight[:, None])


def test_gate_weighs_the_skip_map_by_position():
    gate = zero(AttentionGate(4, 2)).eval()
    for convolution in (gate.gate[0], gate.skip[0], gate.weight[0]):
        nn.init.ones_(convolution.weight)
    for norm in (gate.gate[1], gate.skip[1], gate.weight[1]):
        nn.init.ones_(norm.weight)
    given, skip = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    # two equal channels inside, whose sum is doubled
    inside = 2 * F.relu(given.sum(1) + skip.sum(1))
    expected = skip * inside.sigmoid()[:, None]
    torch.testing.assert_close(
        gate(given, skip), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    'sizes', [(16, 8, 4, 2), (28, 14, 7, 3), (4, 2, 1, 1)]
)
def test_every_grid_is_decoded(sizes):
    decoder = CascadeDecoder([10] * 4, WIDTHS).eval()
    outputs = decoder(maps(sizes))
    assert [tuple(x.shape) for x in outputs] == [
        (2, width, size, size) for width, size in zip(WIDTHS, sizes)
    ]


def test_maps_of_the_right_width_need_no_convolution():
    decoder = CascadeDecoder(WIDTHS, WIDTHS)
    kinds = [type(lateral) for lateral in decoder.laterals]
    assert kinds == [nn.Identity] * 3 + [nn.Conv2d]


# -- head -------------------------------------------------------------------


def test_stages_have_losses_of_their_own():
    torch.manual_seed(0)
    weights = (1.0, 0.5, 0.25, 2.0)
    losses = [
        dict(type='CrossEntropyLoss', loss_weight=0.3),
        dict(type='mmvitcompress.BatchDiceLoss', loss_weight=0.7),
    ]
    model = head(stage_weights=weights, loss_decode=losses)
    labels = torch.randint(0, 3, (2, 64, 64))
    labels[:, :3] = 255
    logits = model.stages(maps())
    found = model.loss_by_feat(logits, samples(labels))
    entropy, dice, total = 0, 0, 0
    for weight, stage in zip(weights, logits):
        big = F.interpolate(stage, size=(64, 64), mode='bilinear')
        # mmseg's mean runs over ignored pixels as well
        entropy += (
            weight
            * F.cross_entropy(
                big, labels, ignore_index=255, reduction='none'
            ).mean()
        )
        dice += weight * batch_dice_loss(big, labels)
        total = total + big
    torch.testing.assert_close(found['loss_ce'], 0.3 * entropy)
    torch.testing.assert_close(found['loss_dice'], 0.7 * dice)
    right = (total.argmax(1) == labels)[:, 3:].float().mean()
    torch.testing.assert_close(found['acc_seg'], 100 * right)


@pytest.mark.parametrize('stride', [2, 4])
def test_predictions_are_the_sum_of_the_stages(stride):
    model = head(stride=stride).eval()
    inputs, size = maps(), (16 * stride, 16 * stride)
    with torch.no_grad():
        found = model(inputs)
        expected = sum(
            F.interpolate(stage, size=size, mode='bilinear')
            for stage in model.stages(inputs)
        )
        big = model.predict(inputs, [dict(img_shape=size)] * 2, {})
        other = model.predict(inputs, [dict(img_shape=(60, 50))] * 2, {})
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(big, expected)
    expected = F.interpolate(expected, size=(60, 50), mode='bilinear')
    torch.testing.assert_close(other, expected)


def test_padding_is_predicted_too():
    metas = [dict(img_shape=(60, 50), pad_shape=(64, 64))] * 2
    with torch.no_grad():
        found = head().eval().predict(maps(), metas, {})
    assert found.shape[2:] == (64, 64)


def test_one_map_of_logits_is_enough_for_two_classes():
    model = head(
        num_classes=2,
        out_channels=1,
        threshold=0.5,
        loss_decode=dict(type='mmvitcompress.StructureLoss'),
    )
    labels = torch.randint(0, 2, (2, 64, 64))
    logits = model.stages(maps())
    found = model.loss_by_feat(logits, samples(labels))
    assert set(found) == {'loss_structure', 'acc_seg'}
    big = [F.interpolate(x, size=(64, 64), mode='bilinear') for x in logits]
    right = ((sum(big)[:, 0] > 0) == labels).float().mean()
    torch.testing.assert_close(found['acc_seg'], 100 * right)
    expected = sum(structure_loss(x, labels) for x in big)
    torch.testing.assert_close(found['loss_structure'], expected)


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(widths=(8, 8)), 'got 4, 2 and 2 values'),
        (dict(stage_weights=(1, 1)), 'got 4, 4 and 2 values'),
        (dict(channels=9), r'widths\[0\] = 8, but got 9'),
        (dict(sampler=dict(type='OHEMPixelSampler')), 'OHEMPixelSampler'),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        head(**wrong)


# -- losses -----------------------------------------------------------------


def test_dice_loss_by_numpy():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 5, 6))
    labels = rng.integers(0, 4, (3, 5, 6))
    labels[:, 0] = 255
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    known = labels != 255
    losses = []
    for index in range(4):
        p = scores[:, index][known]
        y = (labels[known] == index).astype(float)
        shared = 2 * (p * y).sum() + 1e-5
        losses.append(1 - shared / ((p**2).sum() + (y**2).sum() + 1e-5))
    found = batch_dice_loss(torch.tensor(logits), torch.tensor(labels))
    assert found.item() == pytest.approx(np.mean(losses), abs=1e-6)


def test_perfect_predictions_lose_nothing():
    labels = torch.randint(0, 3, (2, 8, 8))
    sure = 100.0 * F.one_hot(labels, 3).permute(0, 3, 1, 2)
    assert batch_dice_loss(sure, labels).item() == pytest.approx(0, abs=1e-6)
    binary = (labels == 1).long()
    sure = 200.0 * binary[:, None] - 100
    assert structure_loss(sure, binary).item() == pytest.approx(0, abs=1e-6)
    assert batch_dice_loss(sure, binary).item() == pytest.approx(0, abs=1e-6)


def test_structure_loss_pixel_by_pixel():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 1, 9, 7))
    truth = (rng.random((2, 9, 7)) > 0.6).astype(int)
    expected = []
    for x, y in zip(logits[:, 0], truth):
        padded = np.pad(y, 2).astype(float)
        weights = np.ones(y.shape)
        for i, j in np.ndindex(y.shape):
            mean = padded[i : i + 5, j : j + 5].mean()
            weights[i, j] += 5 * abs(mean - y[i, j])
        p = 1 / (1 + np.exp(-x))
        entropy = -np.log(np.where(y == 1, p, 1 - p))
        shared = (weights * p * y).sum()
        union = (weights * (p + y)).sum() - shared
        expected.append(
            (weights * entropy).sum() / weights.sum()
            + 1
            - (shared + 1) / (union + 1)
        )
    found = structure_loss(torch.tensor(logits), torch.tensor(truth), window=5)
    assert found.item() == pytest.approx(np.mean(expected), abs=1e-5)


@pytest.mark.parametrize('loss', [batch_dice_loss, structure_loss])
def test_ignored_pixels_get_no_gradient(loss):
    logits = torch.randn(2, 1, 8, 8, requires_grad=True)
    labels = torch.randint(0, 2, (2, 8, 8))
    labels[:, 2:4] = 255
    loss(logits, labels).backward()
    assert logits.grad[:, :, 2:4].abs().max() == 0
    assert (logits.grad[:, :, 5:] != 0).all()
    labels[:] = 255
    assert loss(logits, labels).isfinite()


@pytest.mark.parametrize('kind', ['BatchDiceLoss', 'StructureLoss'])
def test_losses_say_what_they_cannot_do(kind):
    kind = MODELS.get(f'mmvitcompress.{kind}')
    logits, labels = torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4).long()
    with pytest.raises(ConfigError, match=r'decode_head\.sampler'):
        kind()(logits, labels, weight=torch.ones(1, 4, 4))
    with pytest.raises(ConfigError, match='loss_name'):
        kind(loss_name='dice')
    once, twice = (kind(loss_weight=w)(logits, labels) for w in (1, 2))
    torch.testing.assert_close(twice, 2 * once)


def test_structure_loss_is_binary():
    loss = MODELS.get('mmvitcompress.StructureLoss')
    with pytest.raises(ConfigError, match='out_channels=1, but got 2 maps'):
        loss()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4).long())
    with pytest.raises(ConfigError, match='window must be odd'):
        loss(window=30)


def test_losses_are_summed_up_in_full_precision():
    labels = torch.randint(0, 2, (1, 64, 64))
    logits = torch.randn(1, 1, 64, 64)
    for loss in (batch_dice_loss, structure_loss):
        half = loss(logits.bfloat16(), labels)
        assert half.dtype == torch.float32
        torch.testing.assert_close(
            half, loss(logits.bfloat16().float(), labels)
        )


# -- sizes drawn by chance --------------------------------------------------


def test_batches_come_in_every_size():
    sizes = [(32, 32), (48, 64)]
    preprocessor = MODELS.build(
        dict(
            type='mmvitcompress.MultiScalePreProcessor',
            sizes=sizes,
            size=(48, 48),
        )
    )
    torch.manual_seed(0)
    labels = torch.zeros(2, 48, 48, dtype=torch.long)
    labels[:, :24] = 1
    seen = set()
    for _ in range(12):
        batch = dict(
            inputs=[x[None].expand(3, -1, -1).float() for x in labels],
            data_samples=samples(labels),
        )
        for sample in batch['data_samples']:
            sample.set_metainfo(dict(img_shape=(48, 48)))
        data = preprocessor(batch, training=True)
        size = tuple(data['inputs'].shape[2:])
        seen.add(size)
        for image, sample in zip(data['inputs'], data['data_samples']):
            found = sample.gt_sem_seg.data
            assert tuple(found.shape) == (1, *size)
            assert sample.img_shape == size
            # labels stay with the image
            assert ((image[0] > 0.5) == (found[0] == 1)).all()
    assert seen == set(sizes)
    data = preprocessor(
        dict(inputs=[torch.zeros(3, 48, 48)], data_samples=samples(labels[:1]))
    )
    assert data['inputs'].shape[2:] == (48, 48), 'only in training'


# -- without mmseg ----------------------------------------------------------

LAZY = """
import sys
from mmvitcompress.errors import DependencyError
from mmvitcompress.registry import MODELS
assert MODELS.get('CompressedViT') and MODELS.get('BatchDiceLoss')
assert 'mmseg' not in sys.modules
sys.modules['mmseg'] = None  # as if it were not installed
try:
    MODELS.get('mmvitcompress.CascadeDecodeHead')
except DependencyError as error:
    print(error)
"""


@pytest.mark.slow
def test_mmseg_is_imported_for_those_who_ask():
    done = subprocess.run(
        [sys.executable, '-c', LAZY], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "needs the package 'mmseg" in done.stdout
    assert 'requirements/openmmlab.txt' in done.stdout
