"""Windowed attention of a plain ViT against attention under a full mask."""

import pytest
import torch

from mmvitcompress.analysis.complexity import model_complexity
from mmvitcompress.analysis.macs import count_macs
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.windows import Windows
from mmvitcompress.channels.budget import MacBudget
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedViT
from mmvitcompress.models.layers.blocks import Attention

ARCH = dict(embed_dim=24, depth=4, num_heads=2, patch_size=4, img_size=48)
MERGED = dict(token_merging=dict(layers=(2, 3)))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def build(**kwargs):
    torch.manual_seed(1)
    return CompressedViT(**{'arch': ARCH, **kwargs}).double()


def allowed(grid, window, prefix):
    """(n, n): whether a query sees a key; by the definition, in loops."""
    places = [(i, j) for i in range(grid[0]) for j in range(grid[1])]
    cells = [(i // window[0], j // window[1]) for i, j in places]
    n = prefix + len(cells)
    seen = torch.ones(n, n, dtype=torch.bool)
    for q, first in enumerate(cells):
        for k, second in enumerate(cells):
            seen[prefix + q, prefix + k] = first == second
    return seen


@pytest.mark.parametrize('prefix', [0, 1, 3])
@pytest.mark.parametrize(
    ('grid', 'window'),
    [((6, 8), (3, 4)), ((5, 7), (2, 3)), ((4, 9), (4, 2)), ((3, 3), (1, 1))],
)
def test_equals_attention_under_a_mask(grid, window, prefix):
    attention = Attention(24, 2, 5, 7, scale=0.3).double()
    x = torch.randn(2, prefix + grid[0] * grid[1], 24, dtype=torch.float64)
    bias = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    bias.masked_fill_(~allowed(grid, window, prefix), -torch.inf)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    expected = attention(inputs[0], bias)
    found = attention(inputs[1], windows=Windows(grid, window, (0, 0)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for y in (expected, found):
        y.cos().sum().backward()
    torch.testing.assert_close(
        inputs[1].grad, inputs[0].grad, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize('merging', [{}, MERGED])
def test_a_window_that_covers_the_grid_is_global_attention(merging):
    images = torch.randn(1, 3, 44, 36, dtype=torch.float64)  # 11 x 9 patches
    plain = build(**merging)
    wide = build(window_size=11, global_blocks=(), **merging)
    for a, b in zip(wide(images), plain(images)):
        assert torch.equal(a, b)
    narrow = build(window_size=3, global_blocks=(), **merging)
    assert not torch.allclose(narrow(images)[-1], plain(images)[-1])


def test_windows_follow_the_merged_grid():
    """Blocks 2 and 3 on (B, 6, 3) and (B, 3, 3) tokens by hand."""
    model = build(window_size=4, global_blocks=(3,), **MERGED).eval()
    images = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    seen = []
    for block in model.blocks:
        block.register_forward_pre_hook(
            lambda _, inputs: seen.append((inputs[0].shape[1], inputs[2]))
        )
    model(images)
    assert seen == [
        (37, Windows((6, 6), (4, 4), (0, 0))),
        (19, Windows((6, 3), (4, 3), (0, 0))),
        (10, None),  # 3 x 3 tokens fit one window
        (10, None),
    ]


def test_macs_are_those_of_the_windows():
    """Of 24 patches and [CLS], the first block only; counted and priced."""
    image = torch.zeros(1, 3, 24, 16, dtype=torch.float64)  # 6 x 4 patches
    dense = build()
    windowed = build(window_size=4, global_blocks=(1, 2, 3))
    macs = [
        count_macs(lambda model=model: model(image), convention='matmul')
        for model in (dense, windowed)
    ]
    # 6 rows are padded to 8: two windows of 16 queries and 17 keys, widths 24
    saved = 2 * 24 * 25 * 25 - 2 * 24 * (2 * 16 * 17 + 1 * 25)
    assert macs[0].total - macs[1].total == saved
    priced = [
        model.arch.macs((24, 16), final_norm=False, convention='matmul')
        for model in (dense, windowed)
    ]
    assert priced == [count.total for count in macs]
    # what get_flops counts, and what CDCP prunes towards
    for model in (dense, windowed):
        counted = model_complexity(model.float(), (24, 16))['total']['macs']
        without = model.arch.macs((24, 16), final_norm=False)
        budget = MacBudget.of(model.arch, (24, 16))
        assert without == counted
        assert budget.start == model.arch.macs((24, 16))
        assert budget.dense == budget.start


def test_slimming_is_refused_where_windows_are_cut():
    slimming = dict(base_layer=2, layers=(2, 3))
    model = build(patch_slimming=slimming, window_size=3, global_blocks=(2, 3))
    assert len(model(torch.zeros(1, 3, 24, 24, dtype=torch.float64))) == 4
    with pytest.raises(ConfigError, match=r'from 2 on .* 2 is missing'):
        build(patch_slimming=slimming, window_size=3, global_blocks=(1, 3))


def test_refusals():
    for size in (0, 2.5, True):
        with pytest.raises(ConfigError, match='window_size must be'):
            build(window_size=size)
    with pytest.raises(ConfigError, match='global_blocks only has'):
        build(global_blocks=(1,))
    with pytest.raises(ConfigError, match=r'0\.\.3 .* but got 4'):
        build(window_size=3, global_blocks=(4,))


def test_global_blocks_end_the_quarters_by_default():
    model = CompressedViT(arch='deit_tiny', window_size=14)
    assert model.arch.global_blocks == (2, 5, 8, 11)
    arch = ViTArch(**ARCH, window_size=3)
    assert arch == build(window_size=3).arch
    assert ViTArch.from_dict(arch.to_dict()) == arch


@pytest.mark.parametrize(
    'depth, expected', [(1, [0]), (2, [0, 1]), (3, [0, 1, 2])]
)
def test_fewer_blocks_than_quarters(depth, expected):
    """Quarter i ends where i/4 of the blocks are over, if any are."""
    model = build(arch={**ARCH, 'depth': depth}, window_size=3)
    assert list(model.arch.global_blocks) == expected
    assert list(model.out_indices) == expected
    images = torch.randn(1, 3, 24, 16, dtype=torch.float64)
    assert len(model(images)) == len(expected)
