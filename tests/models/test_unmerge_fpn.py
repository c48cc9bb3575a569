"""UnmergeFPN against the list of UnmergePyramid and mmseg's FPN."""

import pytest
import torch
from mmengine.model import BaseModule, Sequential, revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn

from mmvitcompress.models import UnmergePyramid
from mmvitcompress.models.necks.fpn import UnmergeFPN
from mmvitcompress.tokens import TokenMap, TokenState
from mmvitcompress.tokens.methods.atme import merged

DIM, OUT = 6, 5
H, V, D = 'horizontal', 'vertical', 'diagonal'
MERGES = [
    ((), (H,), (H, V), (H, V)),
    ((H, V), (V, H), (D,), (H,)),
    ((D, H), (D,), (V,), (D, V)),
]


def token_map(directions, grid, dim=DIM, batch=2):
    state = TokenState.start(grid)
    for direction in directions:
        state = merged(state, direction)
    n = state.grid[0] * state.grid[1]
    tokens = torch.randn(batch, n, dim, dtype=torch.float64)
    return TokenMap(tokens, state)


def pair(dim=DIM, out=OUT, num_outs=4, norm_cfg=None, whose='mmseg'):
    """The list of both modules, and ours, with equal parameters."""
    norm_cfg = norm_cfg or dict(type='SyncBN')
    fpn = dict(
        type=f'{whose}.FPN',
        in_channels=[dim] * 4,
        out_channels=out,
        num_outs=num_outs,
    )
    stock = nn.Sequential(
        UnmergePyramid(dim, norm_cfg=norm_cfg), MODELS.build(fpn)
    )
    stock = revert_sync_batchnorm(stock).double()
    for value in stock.state_dict().values():
        if value.is_floating_point():
            value.uniform_(-0.5, 0.5).add_((value.dim() == 1) * 1.0)
    ours = UnmergeFPN(dim, out, num_outs, norm_cfg=norm_cfg)
    ours = revert_sync_batchnorm(ours).double()
    ours.load_state_dict(stock.state_dict())  # strict
    return stock, ours


def run(neck, inputs):
    """Outputs, gradients and buffers."""
    tokens = [level.tokens.clone().requires_grad_() for level in inputs]
    outputs = neck(
        [TokenMap(x, level.state) for x, level in zip(tokens, inputs)]
    )
    sum(x.square().sum() for x in outputs).backward()
    return [
        *(x.detach() for x in outputs),
        *(x.grad for x in tokens),
        *(parameter.grad for parameter in neck.parameters()),
        *neck.buffers(),
    ]


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('grid', [(8, 8), (5, 9)])
@pytest.mark.parametrize('merges', MERGES)
def test_equals_the_list_of_both(merges, grid, train):
    inputs = [token_map(directions, grid) for directions in merges]
    stock, ours = pair()
    expected = run(stock.train(train), inputs)
    found = run(ours.train(train), inputs)
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('whose', ['mmseg', 'mmdet'])
def test_further_outputs_and_other_norms(whose):
    pytest.importorskip(whose)
    if whose == 'mmdet':
        import mmdet.models  # noqa: F401
    norm_cfg = dict(type='GN', num_groups=2)
    stock, ours = pair(num_outs=6, norm_cfg=norm_cfg, whose=whose)
    inputs = [token_map((H, V), (16, 12)) for _ in range(4)]
    expected, found = stock(inputs), ours(inputs)
    assert len(found) == len(expected) == 6
    for mine, theirs in zip(found, expected):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_at_inference(few_channels):
    """Convolutions by Winograd."""
    stock, ours = pair(8, 8)
    inputs = [token_map(merges, (9, 11), 8, 1) for merges in MERGES[0]]
    with torch.no_grad():
        expected, found = stock.eval()(inputs), ours.eval()(inputs)
    for mine, theirs in zip(found, expected):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_full_maps():
    stock, ours = pair()
    maps = [torch.randn(2, DIM, 6, 8, dtype=torch.float64) for _ in range(4)]
    for mine, theirs in zip(ours(maps), stock(maps)):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_low_precision_and_compiling():
    _, ours = pair()
    ours = ours.float().eval()
    inputs = [token_map(directions, (8, 8)) for directions in MERGES[0]]
    inputs = [TokenMap(x.float(), state) for x, state in inputs]
    with torch.no_grad():
        expected = ours(inputs)
        with torch.autocast('cpu', torch.bfloat16):
            low = ours(inputs)
        compiled = torch.compile(ours, backend='aot_eager', fullgraph=True)
        for mine, theirs in zip(compiled(inputs), expected):
            torch.testing.assert_close(mine, theirs)
    for mine, theirs in zip(low, expected):
        assert mine.dtype == torch.bfloat16
        error = (mine.float() - theirs).abs().max() / theirs.abs().max()
        assert error < 0.03


def test_starts_as_the_fpn_when_the_model_around_it_does():
    config = dict(
        type='mmvitcompress.UnmergeFPN', embed_dim=32, out_channels=48
    )
    ours = MODELS.build(config)
    assert isinstance(ours, UnmergeFPN)
    assert MODELS.get('UnmergeFPN') is UnmergeFPN
    BaseModule.init_weights(Sequential(ours))
    for convs, fan in (
        (ours[1].fpn_convs, 2 * 48 * 9),
        (ours[1].lateral_convs, 32 + 48),
    ):
        limit = (6 / fan) ** 0.5  # of Xavier's uniform distribution
        for module in convs:
            weight = module.conv.weight.detach()
            assert 0.9 * limit < weight.abs().max() <= limit
            assert weight.abs().mean() == pytest.approx(limit / 2, rel=0.1)
            assert not module.conv.bias.any()
