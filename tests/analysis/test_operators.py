"""Costs of single operators, computed by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmvitcompress.analysis.macs import count_macs
from mmvitcompress.analysis.operators import (
    OPERATOR_COSTS,
    attention_macs,
    deformable_attention_macs,
)


def macs(function, *args, **kwargs):
    return count_macs(function, *args, **kwargs).total


def rand(*shape):
    return torch.rand(shape)


PRODUCTS = {
    # batch 2, 3 tokens, 4 -> 5 channels
    'linear': (lambda: F.linear(rand(2, 3, 4), rand(5, 4)), 2 * 3 * 4 * 5),
    'linear with bias': (
        lambda: F.linear(rand(2, 3, 4), rand(5, 4), rand(5)),
        2 * 3 * 4 * 5,
    ),
    'linear of one token': (lambda: F.linear(rand(4), rand(5, 4)), 4 * 5),
    'mm': (lambda: rand(3, 4) @ rand(4, 5), 3 * 4 * 5),
    'addmm': (lambda: torch.addmm(rand(5), rand(3, 4), rand(4, 5)), 3 * 4 * 5),
    'bmm': (lambda: torch.bmm(rand(2, 3, 4), rand(2, 4, 5)), 2 * 3 * 4 * 5),
    'baddbmm': (
        lambda: torch.baddbmm(rand(2, 3, 5), rand(2, 3, 4), rand(2, 4, 5)),
        2 * 3 * 4 * 5,
    ),
    'addbmm': (
        lambda: torch.addbmm(rand(3, 5), rand(2, 3, 4), rand(2, 4, 5)),
        2 * 3 * 4 * 5,
    ),
    'matrix and vector': (lambda: rand(3, 4) @ rand(4), 3 * 4),
    'addmv': (lambda: torch.addmv(rand(3), rand(3, 4), rand(4)), 3 * 4),
    'dot': (lambda: rand(4) @ rand(4), 4),
    'broadcast matmul': (
        lambda: rand(2, 1, 3, 4) @ rand(6, 4, 5),
        2 * 6 * 3 * 4 * 5,
    ),
    'einsum as in Mask2Former': (
        lambda: torch.einsum(
            'bqc,bchw->bqhw', rand(2, 3, 4), rand(2, 4, 5, 6)
        ),
        2 * 3 * 4 * 5 * 6,
    ),
    'einsum over all': (
        lambda: torch.einsum('bnc,bnc->bn', rand(2, 3, 4), rand(2, 3, 4)),
        2 * 3 * 4,
    ),
    # 7x7 kernel, 8x9 -> 4x5 (stride 2, padding 3), 3 -> 6 channels
    'convolution': (
        lambda: F.conv2d(rand(2, 3, 8, 9), rand(6, 3, 7, 7), None, 2, 3),
        2 * 4 * 5 * 6 * 3 * 49,
    ),
    'convolution without batch': (
        lambda: F.conv2d(rand(3, 8, 9), rand(6, 3, 7, 7), None, 2, 3),
        4 * 5 * 6 * 3 * 49,
    ),
    'depthwise convolution': (
        lambda: F.conv2d(
            rand(2, 6, 8, 9), rand(6, 1, 3, 3), padding=1, groups=6
        ),
        2 * 8 * 9 * 6 * 9,
    ),
    'convolution, padding by name': (
        lambda: F.conv2d(rand(1, 2, 5, 5), rand(4, 2, 3, 3), padding='same'),
        25 * 4 * 2 * 9,
    ),
    'convolution along one dimension': (
        lambda: F.conv1d(rand(2, 3, 8), rand(5, 3, 3)),
        2 * 6 * 5 * 3 * 3,
    ),
    'convolution in three': (
        lambda: F.conv3d(rand(1, 2, 4, 4, 4), rand(3, 2, 2, 2, 2)),
        27 * 3 * 2 * 8,
    ),
    # every input pixel is spread over 2x2, 3 -> 6 channels
    'transposed convolution': (
        lambda: F.conv_transpose2d(
            rand(2, 3, 5, 4), rand(3, 6, 2, 2), stride=2
        ),
        2 * 5 * 4 * 3 * 6 * 4,
    ),
    # batch 2, 3 heads, 5 queries, 7 keys, Q/K 8 and V 4 wide
    'attention': (
        lambda: F.scaled_dot_product_attention(
            rand(2, 3, 5, 8), rand(2, 3, 7, 8), rand(2, 3, 7, 4)
        ),
        2 * 3 * 5 * 7 * (8 + 4),
    ),
    'attention with a mask': (
        lambda: F.scaled_dot_product_attention(
            rand(2, 3, 5, 8),
            rand(2, 3, 7, 8),
            rand(2, 3, 7, 8),
            attn_mask=rand(5, 7),
        ),
        2 * 3 * 5 * 7 * 16,
    ),
    'attention, causal': (
        lambda: F.scaled_dot_product_attention(
            *(rand(1, 2, 5, 8) for _ in range(3)), is_causal=True
        ),
        2 * 5 * 5 * 16,
    ),
    'attention with grouped queries': (
        lambda: F.scaled_dot_product_attention(
            rand(2, 6, 5, 8),
            rand(2, 3, 7, 8),
            rand(2, 3, 7, 8),
            enable_gqa=True,
        ),
        2 * 6 * 5 * 7 * 16,
    ),
}

PER_ELEMENT = {
    # by 24 elements in
    'layer norm': (lambda: nn.LayerNorm(4)(rand(2, 3, 4)), 5 * 24),
    'layer norm, not affine': (lambda: F.layer_norm(rand(2, 3, 4), (4,)), 96),
    'group norm': (lambda: nn.GroupNorm(2, 4)(rand(1, 4, 3, 2)), 5 * 24),
    'group norm, not affine': (
        lambda: F.group_norm(rand(1, 4, 3, 2), 2),
        4 * 24,
    ),
    'instance norm': (
        lambda: nn.InstanceNorm2d(4, affine=True)(rand(1, 4, 3, 2)),
        5 * 24,
    ),
    'instance norm, running statistics': (
        lambda: nn.InstanceNorm2d(
            4, affine=True, track_running_stats=True
        ).eval()(rand(1, 4, 3, 2)),
        5 * 24,
    ),
    'instance norm, not affine': (
        lambda: nn.InstanceNorm2d(4)(rand(1, 4, 3, 2)),
        4 * 24,
    ),
    'batch norm': (lambda: nn.BatchNorm2d(4).eval()(rand(1, 4, 3, 2)), 2 * 24),
    'batch norm, not affine': (
        lambda: nn.BatchNorm2d(4, affine=False).eval()(rand(1, 4, 3, 2)),
        24,
    ),
    'batch norm in training': (
        lambda: nn.BatchNorm2d(4)(rand(1, 4, 3, 2)),
        5 * 24,
    ),
    'batch norm in training, not affine': (
        lambda: nn.BatchNorm2d(4, affine=False)(rand(1, 4, 3, 2)),
        4 * 24,
    ),
    'global pooling': (lambda: F.adaptive_avg_pool2d(rand(1, 4, 3, 2), 1), 24),
    'adaptive pooling': (
        lambda: F.adaptive_avg_pool2d(rand(1, 4, 3, 2), 2),
        24,
    ),
    # by 96 elements out
    'bilinear': (
        lambda: F.interpolate(rand(1, 4, 3, 2), (6, 4), mode='bilinear'),
        4 * 96,
    ),
    'nearest': (lambda: F.interpolate(rand(1, 4, 3, 2), scale_factor=2), 96),
    # 4 channels at 5x6 places
    'sampling': (
        lambda: F.grid_sample(
            rand(1, 4, 3, 2), rand(1, 5, 6, 2), align_corners=False
        ),
        4 * 4 * 5 * 6,
    ),
}

FREE = {
    'mean': lambda: rand(1, 4, 3, 2).mean((2, 3), keepdim=True),
    'softmax': lambda: rand(3, 4).softmax(-1),
    'GELU': lambda: F.gelu(rand(3, 4)),
    'ReLU in place': lambda: F.relu_(rand(3, 4)),
    'hard swish in place': lambda: F.hardswish(rand(3, 4), inplace=True),
    'sum of two': lambda: rand(3, 4) + rand(4),
    'max pooling': lambda: F.max_pool2d(rand(1, 4, 4, 4), 2),
    'average pooling': lambda: F.avg_pool2d(rand(1, 4, 4, 4), 2),
    'gather': lambda: rand(3, 4).gather(1, torch.zeros(3, 2).long()),
    'sort': lambda: rand(3, 4).sort(),
    'concatenation': lambda: torch.cat([rand(3, 4), rand(3, 4)]),
    'padding': lambda: F.pad(rand(3, 4), (1, 1)),
    'dropout': lambda: F.dropout(rand(3, 4)),
    'reshape': lambda: rand(3, 4).t().reshape(2, 6).unflatten(1, (2, 3)),
}


@pytest.mark.parametrize('name', PRODUCTS)
def test_products_count_by_either_convention(name):
    function, expected = PRODUCTS[name]
    count = count_macs(function)
    assert count.total == expected
    assert count.uncounted == {}
    assert macs(function, convention='matmul') == expected


@pytest.mark.parametrize('name', PER_ELEMENT)
def test_norms_and_resampling_count_as_in_fvcore_only(name):
    function, expected = PER_ELEMENT[name]
    count = count_macs(function)
    assert count.total == expected
    assert count.uncounted == {}
    products = count_macs(function, convention='matmul')
    assert products.total == 0
    assert products.uncounted == {}


@pytest.mark.parametrize('name', FREE)
def test_what_is_free_by_convention_is_not_called_uncounted(name):
    count = count_macs(FREE[name])
    assert count.total == 0
    assert count.uncounted == {}


@pytest.mark.parametrize('need_weights', [True, False])
@pytest.mark.parametrize('train', [True, False])
def test_multihead_attention_fast_path_or_not(train, need_weights):
    # the fast path, taken in evaluation, is one operator
    attention = nn.MultiheadAttention(8, 2, batch_first=True).train(train)
    tokens = rand(3, 5, 8)
    expected = 3 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8)
    count = count_macs(
        lambda: attention(tokens, tokens, tokens, need_weights=need_weights)
    )
    assert count.total == expected
    assert ('_native_multi_head_attention' in count.operators) != train


def test_cross_attention():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    queries, keys = rand(3, 5, 8), rand(3, 7, 8)
    expected = 3 * ((2 * 5 + 2 * 7) * 8 * 8 + 2 * 5 * 7 * 8)
    assert macs(attention, queries, keys, keys) == expected


@pytest.mark.parametrize('convention', OPERATOR_COSTS)
def test_transformer_layer_fast_path_equals_the_slow_one(convention):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    tokens = rand(3, 5, 8)
    fast = count_macs(layer.eval(), tokens, convention=convention)
    assert list(fast.operators) == ['_transformer_encoder_layer_fwd']
    products = 3 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16)
    norms = 2 * 5 * tokens.numel() if convention == 'fvcore' else 0
    assert fast.total == products + norms
    layer.train()
    assert macs(lambda: layer(tokens), convention=convention) == fast.total


def test_attention_is_both_of_its_products():
    query, key, value = rand(2, 3, 5, 8), rand(2, 3, 7, 8), rand(2, 3, 7, 4)

    def unfused():
        return (query @ key.transpose(-2, -1)).softmax(-1) @ value

    assert macs(unfused) == attention_macs(2 * 3, 5, 7, 8, 4)


def test_deformable_attention_by_hand():
    # 2 images, 6 queries, 3 heads of 4 channels, 2 levels of 5 points
    value, locations = rand(2, 20, 3, 4), rand(2, 6, 3, 2, 5, 2)
    expected = 2 * 6 * 3 * 4 * 2 * 5 * 4
    assert deformable_attention_macs(value, None, None, locations) == expected
