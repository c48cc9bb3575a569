"""FastFPNHead against MMSegmentation's own head."""

import pytest
import torch
from mmengine.registry import init_default_scope

from mmvitcompress.models import winograd
from mmvitcompress.models.fast_fpn_head import FastFPNHead

SETTINGS = dict(
    in_channels=[6, 7, 8, 9],
    in_index=[0, 1, 2, 3],
    feature_strides=[4, 8, 16, 32],
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
    from mmseg.models.decode_heads import FPNHead

    torch.manual_seed(0)
    stock = FPNHead(**{**SETTINGS, **changes}).double()
    fast = FastFPNHead(**{**SETTINGS, **changes}).double()
    for module in stock.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for value in module.state_dict().values():
                if value.is_floating_point():
                    value.uniform_(0.5, 1.5)
    fast.load_state_dict(stock.state_dict())
    return stock, fast


def maps(sizes, batch=2):
    channels = SETTINGS['in_channels']
    return [
        torch.randn(batch, c, *size, dtype=torch.double)
        for c, size in zip(channels, sizes)
    ]


@pytest.mark.parametrize('sizes', [EVEN, ODD], ids=['even', 'odd'])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), None])
@pytest.mark.parametrize('training', [False, True])
def test_same_outputs_gradients_and_statistics(
    sizes, align_corners, norm_cfg, training
):
    pair = heads(align_corners=align_corners, norm_cfg=norm_cfg)
    results = []
    inputs = maps(sizes)
    for head in pair:
        given = [x.clone().requires_grad_() for x in inputs]
        out = head.train(training)(given)
        (out**2).mean().backward()
        results.append(
            [
                out.detach(),
                *(x.grad for x in given),
                *(p.grad for p in head.parameters()),
                *head.buffers(),
            ]
        )
    assert len(results[0]) == len(results[1]) > 5
    for theirs, mine in zip(*results):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    'changes',
    [
        dict(in_channels=[6, 7, 7, 9]),
        dict(align_corners=True, norm_cfg=dict(type='GN', num_groups=5)),
        dict(feature_strides=[4, 8, 8, 32]),
        dict(act_cfg=dict(type='GELU')),
    ],
)
def test_same_outputs_at_inference(changes, few_channels):
    stock, fast = heads(**changes)
    widths = changes.get('in_channels', SETTINGS['in_channels'])
    sizes = [(39, 36), (20, 18), (10, 9), (5, 5)]
    inputs = [
        torch.randn(2, width, *size, dtype=torch.double)
        for width, size in zip(widths, sizes)
    ]
    if 'feature_strides' in changes:
        inputs[2] = torch.randn(2, widths[2], 20, 18, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(
            fast.eval()(inputs), stock.eval()(inputs), rtol=0, atol=1e-10
        )


def test_maps_of_equal_size_are_upsampled_together(monkeypatch):
    from mmseg.models.utils import Upsample

    counts = []
    forward = Upsample.forward
    monkeypatch.setattr(
        Upsample,
        'forward',
        lambda self, x: counts.append(1) or forward(self, x),
    )
    stock, fast = heads()
    with torch.no_grad():
        stock(maps(EVEN))
        assert len(counts) == 1 + 2 + 3
        counts.clear()
        fast(maps(EVEN))
    assert len(counts) == 1 + 1 + 2


def test_low_precision_and_compiling():
    _, fast = heads()
    fast.float().eval()
    inputs = [x.float() for x in maps(EVEN)]
    with torch.no_grad():
        expected = fast(inputs)
        with torch.autocast('cpu', torch.bfloat16):
            low = fast(inputs)
        compiled = torch.compile(fast, backend='aot_eager', fullgraph=True)
        torch.testing.assert_close(compiled(inputs), expected)
    assert low.dtype == torch.bfloat16
    error = (low.float() - expected).abs().max() / expected.abs().max()
    assert error < 0.03


def test_it_is_found():
    from mmseg.registry import MODELS

    config = dict(type='mmvitcompress.FastFPNHead', **SETTINGS)
    assert isinstance(MODELS.build(config), FastFPNHead)
