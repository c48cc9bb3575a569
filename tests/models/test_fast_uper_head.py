"""FastUPerHead against MMSegmentation's own head."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import init_default_scope

from mmvitcompress.errors import ConfigError
from mmvitcompress.models import fast_conv, fast_uper_head, winograd
from mmvitcompress.models.fast_uper_head import FastUPerHead
from mmvitcompress.models.upsampled_conv import (
    conv_of_upsampled,
    shifted_upsampling,
)
from mmvitcompress.models.winograd import winograd_conv

SETTINGS = dict(
    in_channels=[6, 7, 8, 9],
    in_index=[0, 1, 2, 3],
    pool_scales=(1, 2, 3),
    channels=5,
    dropout_ratio=0.0,
    num_classes=4,
    norm_cfg=dict(type='BN'),
    align_corners=False,
)
EVEN = [(16, 24), (8, 12), (4, 6), (2, 3)]
ODD = [(13, 9), (7, 5), (4, 3), (2, 2)]


@pytest.fixture(autouse=True)
def mmseg_scope():
    """Where the head finds its loss."""
    init_default_scope('mmseg')


@pytest.fixture
def few_channels(monkeypatch):
    """Winograd for maps as small as tests want them."""
    monkeypatch.setattr(winograd, 'LEAST_CHANNELS', 1)


def heads(**changes):
    from mmseg.models.decode_heads import UPerHead

    torch.manual_seed(0)
    stock = UPerHead(**{**SETTINGS, **changes}).double()
    fast = FastUPerHead(**{**SETTINGS, **changes}).double()
    for module in stock.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight, 1, 0.1)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    fast.load_state_dict(stock.state_dict())
    return stock, fast


def maps(sizes, batch=2):
    channels = SETTINGS['in_channels']
    return [
        torch.randn(batch, c, *size, dtype=torch.double, requires_grad=True)
        for c, size in zip(channels, sizes)
    ]


@pytest.mark.parametrize('sizes', [EVEN, ODD], ids=['even', 'odd'])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), None])
@pytest.mark.parametrize('training', [False, True])
def test_same_outputs_gradients_and_statistics(
    sizes, align_corners, norm_cfg, training
):
    stock, fast = heads(align_corners=align_corners, norm_cfg=norm_cfg)
    results = []
    inputs = maps(sizes)
    for head in (stock, fast):
        given = [x.detach().clone().requires_grad_() for x in inputs]
        out = head.train(training)(given)
        (out**2).mean().backward()
        results.append(
            [
                out.detach(),
                *(x.grad for x in given),
                *(p.grad for p in head.parameters() if p.grad is not None),
                *head.buffers(),
            ]
        )
    assert len(results[0]) == len(results[1]) > 5
    for theirs, mine in zip(*results):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), None])
def test_same_outputs_at_inference(
    align_corners, norm_cfg, monkeypatch, few_channels
):
    """Norms folded, convolutions by Winograd."""
    calls = []
    for module in (fast_uper_head, fast_conv):
        monkeypatch.setattr(
            module,
            'winograd_conv',
            lambda *args: calls.append(len(args[0])) or winograd_conv(*args),
        )
    stock, fast = heads(align_corners=align_corners, norm_cfg=norm_cfg)
    inputs = maps([(39, 36), (20, 18), (10, 9), (5, 5)])
    with torch.no_grad():
        expected = stock.train()(inputs)  # and statistics other than 0, 1
        fast.load_state_dict(stock.state_dict())
        expected = stock.eval()(inputs)
        torch.testing.assert_close(
            fast.eval()(inputs), expected, rtol=0, atol=1e-10
        )
    # the finest map of the FPN, and two maps at once in the last one
    assert calls == [1, 2]


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    align_corners=st.booleans(),
)
def test_equals_convolving_the_upsampled_map(
    height, width, size, align_corners
):
    x = torch.randn(2, 3, height, width, dtype=torch.double)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.double)
    up = F.interpolate(
        x, size=size, mode='bilinear', align_corners=align_corners
    )
    torch.testing.assert_close(
        conv_of_upsampled(x, weight, size, align_corners),
        F.conv2d(up, weight, padding=1),
        rtol=1e-10,
        atol=1e-10,
    )


def test_matrix_by_hand():
    # two positions become four, 1, 3/4, 1/4, 0 of the first one
    like = torch.zeros(1, dtype=torch.double)
    line = torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    none = torch.zeros(1, 2)
    expected = torch.cat(
        [
            torch.cat([none, line[:3]]),
            line,
            torch.cat([line[1:], none]),
        ],
        1,
    )
    found = shifted_upsampling(2, 4, like)
    assert torch.equal(found, expected.double())


def test_low_precision_and_compiling():
    _, fast = heads()
    fast.float().eval()
    given = [x.detach().float() for x in maps(EVEN)]
    with torch.no_grad():
        expected = fast(given)
        with torch.autocast('cpu', torch.bfloat16):
            low = fast(given)
        compiled = torch.compile(fast, backend='aot_eager', fullgraph=True)
        torch.testing.assert_close(compiled(given), expected)
    assert low.dtype == torch.bfloat16
    error = (low.float() - expected).abs().max() / expected.abs().max()
    assert error < 0.03


def test_it_is_found_and_refuses_other_convolutions():
    from mmseg.registry import MODELS

    config = dict(type='mmvitcompress.FastUPerHead', **copy.copy(SETTINGS))
    assert isinstance(MODELS.build(config), FastUPerHead)
    with pytest.raises(ConfigError, match='use UPerHead'):
        FastUPerHead(
            **{**SETTINGS, 'conv_cfg': dict(type='Conv2dAdaptivePadding')}
        )
