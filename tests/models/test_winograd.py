"""Winograd convolutions against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmvitcompress.models.fast import conv as fast_conv
from mmvitcompress.models.fast import winograd
from mmvitcompress.models.fast.conv import FastConv2d, use_fast_convs
from mmvitcompress.models.fast.winograd import winograd_conv, winograd_pays


@pytest.fixture(autouse=True)
def few_channels(monkeypatch):
    """Tests are to be quick."""
    monkeypatch.setattr(winograd, 'LEAST_CHANNELS', 4)


def direct(maps, weights, size, bias, align_corners):
    total = bias[:, None, None]
    for x, weight in zip(maps, weights):
        x = F.interpolate(
            x, size, mode='bilinear', align_corners=align_corners
        )
        total = total + F.conv2d(x, weight, padding=1)
    return total


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 45), st.integers(1, 140)),
    shrink=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        min_size=1,
        max_size=3,
    ),
    align_corners=st.booleans(),
)
def test_equals_the_sum_of_convolutions(size, shrink, align_corners):
    lows = [
        tuple(-(-side // factor) for side, factor in zip(size, factors))
        for factors in shrink
    ]
    maps = [torch.randn(2, 2, *low, dtype=torch.double) for low in lows]
    weights = [torch.randn(3, 2, 3, 3, dtype=torch.double) for _ in lows]
    bias = torch.randn(3, dtype=torch.double)
    args = maps, weights, size, bias, align_corners
    torch.testing.assert_close(
        winograd_conv(*args), direct(*args), rtol=0, atol=1e-10
    )


def test_gradients_flow():
    x = torch.randn(1, 2, 5, 6, dtype=torch.double, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.double, requires_grad=True)
    cotangent = torch.randn(1, 3, 5, 6, dtype=torch.double)
    found = winograd_conv([x], [weight], (5, 6))
    expected = F.conv2d(x, weight, padding=1)
    for mine, theirs in zip(
        torch.autograd.grad(found, (x, weight), cotangent),
        torch.autograd.grad(expected, (x, weight), cotangent),
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_rounding_in_single_precision():
    x, weight = torch.randn(1, 128, 32, 32), torch.randn(64, 128, 3, 3)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (winograd_conv([x], [weight], (32, 32)) - exact).abs().max()
    assert error < 2e-5 * exact.abs().max()


@pytest.mark.parametrize('kernel_size', [1, 3])
def test_module_picks_at_inference_only(kernel_size, monkeypatch):
    calls = []

    def spy(*args):
        calls.append(1)
        return winograd_conv(*args)

    monkeypatch.setattr(fast_conv, 'winograd_conv', spy)
    padding = kernel_size // 2
    stock = nn.Conv2d(8, 10, kernel_size, padding=padding).double()
    fast = FastConv2d(8, 10, kernel_size, padding=padding).double()
    fast.load_state_dict(stock.state_dict())
    x = torch.randn(1, 8, 32, 33, dtype=torch.double)
    torch.testing.assert_close(fast(x), stock(x))
    assert not calls
    with torch.no_grad():
        torch.testing.assert_close(fast(x), stock(x), rtol=0, atol=1e-10)
        assert len(calls) == (kernel_size == 3)
        fast.float()
        with torch.autocast('cpu', torch.bfloat16):
            assert fast(x.float()).dtype == torch.bfloat16
        assert len(calls) == (kernel_size == 3)


def test_when_it_pays(monkeypatch):
    monkeypatch.undo()
    x, weight = torch.zeros(1, 160, 32, 32), torch.zeros(160, 160, 3, 3)
    assert not winograd_pays(x, weight, (32, 32))  # gradients are wanted
    with torch.no_grad():
        assert winograd_pays(x, weight, (32, 32))
        assert not winograd_pays(x, weight, (31, 32))
        assert winograd_pays(x.expand(2, -1, -1, -1), weight, (31, 32))
        assert not winograd_pays(x, weight[:, :159], (32, 32))
        assert not winograd_pays(x.half(), weight, (32, 32))
        assert not winograd_pays(x.to('meta'), weight, (32, 32))
        with torch.autocast('cpu', torch.bfloat16):
            assert not winograd_pays(x, weight, (32, 32))


def test_compiles_in_one_graph():
    fast = FastConv2d(8, 8, 3, padding=1)
    x = torch.randn(1, 8, 32, 32)
    with torch.no_grad():
        compiled = torch.compile(fast, backend='aot_eager', fullgraph=True)
        torch.testing.assert_close(compiled(x), fast(x))


def test_exported_graphs_keep_the_convolution():
    fast = FastConv2d(8, 8, 3, padding=1).requires_grad_(False)
    with torch.no_grad():
        graph = torch.export.export(fast, (torch.randn(1, 8, 32, 32),))
    names = [str(node.target) for node in graph.graph.nodes]
    assert any('conv2d' in name for name in names)
    assert not any('bmm' in name for name in names)


def test_a_model_is_turned_over_in_place():
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2),
        nn.Conv2d(64, 64, 1),
    )
    names = list(model.state_dict())
    x = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        expected = model(x)
        assert use_fast_convs(model) == 2
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-4)
    assert list(model.state_dict()) == names
    assert use_fast_convs(model) == 0


def test_blocks_cover_all_tiles():
    for count in (1, 8, 9, 31, 84):
        blocks = list(winograd._blocks(count, 8))
        ends = [0, *(end for _, end in blocks)]
        assert ends[-1] == count
        assert [start for start, _ in blocks] == ends[:-1]
        assert max(end - start for start, end in blocks) <= 8
