"""Deformable attention by summed rows, against MMCV's own."""

import copy

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import (
    multi_scale_deformable_attn_pytorch,
)

from mmvitcompress.models.fast.deformable_attention import (
    FastDeformableAttention,
    sample,
    use_fast_deformable_attention,
)

SHAPES = torch.tensor([[4, 6], [3, 2], [1, 1]])


def make_input(batch):
    """Values, locations (some outside of the maps) and weights."""
    torch.manual_seed(0)
    value = torch.randn(batch, 31, 2, 5).double()
    locations = torch.rand(batch, 7, 2, 3, 4, 2).double() * 1.6 - 0.3
    weights = torch.rand(batch, 7, 2, 3, 4).double()
    return [x.requires_grad_() for x in (value, locations, weights)]


@pytest.mark.parametrize('batch', [1, 3])
def test_samples_and_gradients_are_those_of_mmcv(batch):
    value, locations, weights = make_input(batch)
    found = sample(value, SHAPES, locations, weights)
    expected = multi_scale_deformable_attn_pytorch(
        value, SHAPES, locations, weights
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    cotangent = torch.randn_like(expected)
    inputs = (value, locations, weights)
    gradients = [
        torch.autograd.grad(output, inputs, cotangent)
        for output in (found, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


@pytest.mark.parametrize('batch_first', [False, True])
def test_module_is_mmcvs(batch_first):
    stock = MultiScaleDeformableAttention(
        embed_dims=16,
        num_heads=4,
        num_levels=3,
        num_points=2,
        batch_first=batch_first,
        dropout=0.0,
    ).double()
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter)
    fast = copy.deepcopy(stock)
    assert use_fast_deformable_attention(fast) == 1
    assert type(fast) is FastDeformableAttention
    query = torch.randn(2, 31, 16).double()
    mask = torch.rand(2, 31) < 0.3
    arguments = dict(
        query=query if batch_first else query.transpose(0, 1),
        query_pos=torch.randn(1, 31, 16).double()
        if batch_first
        else torch.randn(31, 1, 16).double(),
        key_padding_mask=mask,
        reference_points=torch.rand(2, 31, 3, 2).double(),
        spatial_shapes=SHAPES,
        level_start_index=torch.tensor([0, 24, 30]),
    )
    torch.testing.assert_close(
        fast(**arguments), stock(**arguments), rtol=0, atol=1e-10
    )


def test_autocast():
    value, locations, weights = (x.detach().float() for x in make_input(2))
    exact = sample(value, SHAPES, locations, weights)
    found = sample(value.bfloat16(), SHAPES, locations, weights)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize('training', [False, True])
def test_pixel_decoder_is_mmdets(training):
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    attention = dict(
        embed_dims=32,
        num_heads=4,
        num_levels=3,
        num_points=2,
        dropout=0.0,
        batch_first=True,
    )
    cfg = ConfigDict(
        type='MSDeformAttnPixelDecoder',
        in_channels=[8] * 4,
        strides=[4, 8, 16, 32],
        feat_channels=32,
        out_channels=32,
        num_outs=3,
        norm_cfg=dict(type='GN', num_groups=4),
        encoder=dict(
            num_layers=2,
            layer_cfg=dict(
                self_attn_cfg=attention,
                ffn_cfg=dict(embed_dims=32, feedforward_channels=64),
            ),
        ),
        positional_encoding=dict(num_feats=16, normalize=True),
    )
    stock = MODELS.build(cfg).double().train(training)
    cfg['type'] = 'mmvitcompress.FastMSDeformAttnPixelDecoder'
    fast = MODELS.build(cfg).double().train(training)
    fast.load_state_dict(stock.state_dict())
    maps = [torch.randn(2, 8, 32 >> i, 48 >> i).double() for i in range(4)]
    (mask, outputs), (stock_mask, stock_outputs) = fast(maps), stock(maps)
    torch.testing.assert_close(mask, stock_mask, rtol=0, atol=1e-9)
    torch.testing.assert_close(outputs, stock_outputs, rtol=0, atol=1e-9)
