"""Backbone, neck and head of real OpenMMLab models."""

import warnings

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from mmvitcompress.analysis.candidates import build_candidate
from mmvitcompress.analysis.complexity import model_complexity
from mmvitcompress.analysis.inference import run_network
from mmvitcompress.analysis.macs import count_macs
from mmvitcompress.api import CompressedModel
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.models import CompressedViT

SHAPE = (60, 90)


def test_figures_of_every_kind_of_model_add_up(config):
    model = build_candidate(config).train()
    figures = model_complexity(model, SHAPE)
    assert figures['shape'] == [60, 90]
    assert list(figures['parts']) == ['backbone', 'neck', 'head']
    for kind in ('macs', 'params'):
        by_part = [part[kind] for part in figures['parts'].values()]
        assert sum(by_part) == figures['total'][kind]
    assert sum(figures['operators'].values()) == figures['total']['macs']
    everything = sum(p.numel() for p in model.parameters())
    unused = figures['training_only']['params']
    assert figures['total']['params'] + unused == everything
    backbone = sum(p.numel() for p in model.backbone.parameters())
    assert figures['parts']['backbone']['params'] == backbone
    assert figures['parts']['head']['macs'] > 0
    assert model.training  # put back


@pytest.mark.slow
def test_figures_are_the_same_each_time(config):
    torch.manual_seed(1)
    first = model_complexity(build_candidate(config), SHAPE)
    torch.manual_seed(2)
    assert model_complexity(build_candidate(config), SHAPE) == first


@pytest.mark.slow
def test_matmul_convention_counts_less(config):
    model = build_candidate(config)
    fvcore = model_complexity(model, SHAPE)
    matmul = model_complexity(model, SHAPE, 'matmul')
    assert matmul['convention'] == 'matmul'
    names = {'linear', 'convolution', 'bmm', 'baddbmm'}
    names |= {n for n in fvcore['operators'] if 'attention' in n}
    assert set(matmul['operators']) <= names
    for name, macs in matmul['operators'].items():
        assert fvcore['operators'][name] == macs


@pytest.mark.parametrize('channels', [1, 5])
def test_images_have_the_channels_of_the_model(channels):
    conv = nn.Conv2d(channels, 8, 2, bias=False)
    assert model_complexity(conv, (3, 4))['total']['macs'] == 192 * channels
    arch = dict(
        embed_dim=12, depth=1, num_heads=2, patch_size=4, in_chans=channels
    )
    for model in (
        CompressedViT(arch, img_size=(8, 12)),
        CompressedModel(ViTArch(**arch, img_size=(8, 12))),
    ):
        # [CLS] and 6 patches, each of 12 outputs, 16 inputs a channel
        stem = 6 * 12 * 16 * channels
        found = model_complexity(model, (8, 12))['operators']['convolution']
        assert found == stem


def test_upernet_agrees_with_fvcore_by_part(make_config):
    model = build_candidate(make_config('upernet')).eval()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        analysis = FlopCountAnalysis(model, torch.rand(1, 3, 64, 96))
        analysis.unsupported_ops_warnings(False)
        analysis.uncalled_modules_warnings(False)
        expected = analysis.by_module()
    figures = model_complexity(model, (64, 96))
    parts = {name: part['macs'] for name, part in figures['parts'].items()}
    assert parts['backbone'] == expected['backbone']
    assert parts['neck'] == expected['neck']
    assert figures['total']['macs'] == expected['']


def test_auxiliary_head_is_reported_by_itself(make_config):
    model = build_candidate(make_config('upernet'))
    figures = model_complexity(model, (64, 64))
    auxiliary = sum(p.numel() for p in model.auxiliary_head.parameters())
    assert figures['training_only'] == {'params': auxiliary}
    head = sum(p.numel() for p in model.decode_head.parameters())
    assert figures['parts']['head']['params'] == head


@pytest.mark.parametrize(
    ('name', 'stages'), [('mask_rcnn', 1), ('cascade_mask_rcnn', 3)]
)
def test_roi_heads_by_hand(make_config, name, stages):
    model = build_candidate(make_config(name))
    figures = model_complexity(model, SHAPE)
    assert figures['regions'] == {'proposals': 50, 'masks': 10}
    assert figures['input_shape'] == [64, 96]
    # 3x3 convolution, 3 objectness and 12 box outputs of 1x1, five levels
    places = 16 * 24 + 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2
    rpn = places * (16 * 16 * 9 + 16 * 15)
    # two layers, 6 scores, and 4 coordinates for each of 5 classes or for all
    coordinates = 4 * 5 if stages == 1 else 4
    box = 16 * 49 * 32 + 32 * 32 + 32 * 6 + 32 * coordinates
    # 3x3 convolution, transposed 2x2 convolution, 5 masks
    mask = 196 * 16 * 16 * 9 + 196 * 16 * 16 * 4 + 784 * 16 * 5
    expected = rpn + stages * (50 * box + 10 * mask)
    assert figures['parts']['head']['macs'] == expected
    # not in the convention, and said
    assert figures['uncounted']['mmcv::roi_align_forward'] > 0


def test_deformable_attention_counts_alike_in_both_implementations():
    from mmcv.ops.multi_scale_deform_attn import (
        MultiScaleDeformableAttnFunction,
        multi_scale_deformable_attn_pytorch,
    )

    shapes = torch.tensor([[4, 6], [2, 3]])
    starts = torch.tensor([0, 24])
    value = torch.rand(2, 30, 3, 4)
    locations = torch.rand(2, 7, 3, 2, 5, 2)
    weights = torch.rand(2, 7, 3, 2, 5)
    plain = count_macs(
        multi_scale_deformable_attn_pytorch, value, shapes, locations, weights
    )
    compiled = count_macs(
        MultiScaleDeformableAttnFunction.apply,
        value,
        shapes,
        starts,
        locations,
        weights,
        64,
    )
    assert plain.operators == {'grid_sampler': 4 * 2 * 7 * 3 * 4 * 2 * 5}
    assert compiled.operators == {
        'ms_deform_attn_forward': 4 * 2 * 7 * 3 * 4 * 2 * 5
    }
    assert plain.uncounted == compiled.uncounted == {}


def test_the_extension_is_put_back():
    import mmcv._ext

    before = dict(vars(mmcv._ext))
    with pytest.raises(ZeroDivisionError):
        count_macs(lambda: 1 / 0)
    assert dict(vars(mmcv._ext)) == before


def test_mask2former_in_mmseg_is_mask2former_in_mmdet(make_config):
    """The same model in either library, but for its classes."""
    in_mmseg = make_config('mask2former_seg')
    in_mmdet = make_config('mask2former_det')
    ours = model_complexity(build_candidate(in_mmseg), SHAPE)
    theirs = model_complexity(build_candidate(in_mmdet), SHAPE)
    assert ours['operators'] == theirs['operators']
    assert ours['parts'] == theirs['parts']
    # masked attention is computed in full: 7 queries, heads of 8 channels
    keys = [2 * 3, 4 * 6, 8 * 12]
    attended = 3 * (2 * 7 * 7 * 16) + sum(2 * 7 * n * 16 for n in keys)
    # the mask of every query at stride 4, before each layer and at the end
    masks = 4 * 7 * 16 * (16 * 24)
    products = ours['operators']['bmm'] + ours['operators']['baddbmm']
    assert products == attended + masks


def test_merging_is_seen_in_the_backbone_alone(make_config):
    merged = make_config('mask2former_seg')
    dense = make_config('mask2former_seg')
    dense.model.backbone.pop('token_merging')
    merged = model_complexity(build_candidate(merged), (64, 64))['parts']
    dense = model_complexity(build_candidate(dense), (64, 64))['parts']
    assert merged['backbone']['macs'] < dense['backbone']['macs']
    assert merged['head'] == dense['head']


@pytest.mark.slow
def test_more_images_cost_in_proportion(config):
    model = build_candidate(config).eval()
    one, three = (
        count_macs(run_network, model, torch.rand(n, 3, 64, 96))
        for n in (1, 3)
    )
    assert three.total == 3 * one.total
