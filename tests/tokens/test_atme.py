"""Merging against average pooling and hand-made grids; exact restoring."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens import (
    TokenMerge,
    TokenState,
    restore,
)
from mmvitcompress.tokens.grids import shear, to_map
from mmvitcompress.tokens.methods.atme import neighbours

DIM = 3
SEPARABLE = ('horizontal', 'vertical', 'symmetric')
DIRECTIONS = (*SEPARABLE, 'diagonal')
POOL = {'horizontal': (1, 2), 'vertical': (2, 1), 'symmetric': (2, 2)}


def grid_of(height, width):
    """Grid whose entry (i, j) is 10·i + j."""
    rows = torch.arange(height)[:, None] * 10.0
    return (rows + torch.arange(width))[None, ..., None]


def run(directions, x, num_prefix):
    """Merge (B, prefix + H·W, D) step by step."""
    tokens, state = x
    for direction in directions:
        merge = TokenMerge(tokens.shape[-1], direction).to(tokens.dtype)
        tokens, state = merge(tokens, state, num_prefix)
    return tokens, state


def random_tokens(grid, num_prefix, batch=2):
    count = num_prefix + grid[0] * grid[1]
    tokens = torch.randn(batch, count, DIM, dtype=torch.float64)
    return tokens, TokenState.start(grid)


def pooled(x, direction):
    """One merge of a map (B, C, H, W) under mean weights."""
    if direction == 'diagonal':
        x = reference_shear(x)
        direction = 'vertical'
    step_h, step_w = POOL[direction]
    pad = (0, x.shape[3] % step_w, 0, x.shape[2] % step_h)
    return F.avg_pool2d(F.pad(x, pad, mode='replicate'), (step_h, step_w))


def reference_shear(x):
    x = x.clone()
    for i in range(1, x.shape[2], 2):
        for j in range(0, x.shape[3] - 1, 2):
            x[:, :, i, [j, j + 1]] = x[:, :, i, [j + 1, j]]
    return x


def test_neighbours_by_hand():
    grid = grid_of(2, 4)
    found = neighbours(grid, 'horizontal')[0]
    assert found.tolist() == [
        [[0, 1], [2, 3]],
        [[10, 11], [12, 13]],
    ]
    found = neighbours(grid, 'vertical')[0]
    assert found.tolist() == [[[0, 10], [1, 11], [2, 12], [3, 13]]]
    found = neighbours(grid, 'symmetric')[0]
    assert found.tolist() == [[[0, 1, 10, 11], [2, 3, 12, 13]]]
    found = neighbours(grid, 'diagonal')[0]
    assert found.tolist() == [[[0, 11], [1, 10], [2, 13], [3, 12]]]


def test_odd_edges_repeat():
    grid = grid_of(3, 3)
    assert neighbours(grid, 'horizontal')[0, 0].tolist() == [[0, 1], [2, 2]]
    assert neighbours(grid, 'vertical')[0, 1].tolist() == [
        [20, 20],
        [21, 21],
        [22, 22],
    ]
    # the last column has no partner and merges vertically
    assert neighbours(grid, 'diagonal')[0, 0].tolist() == [
        [0, 11],
        [1, 10],
        [2, 12],
    ]


def test_horizontal_neighbours_are_a_view():
    grid = torch.randn(2, 4, 6, DIM)
    assert neighbours(grid, 'horizontal').data_ptr() == grid.data_ptr()


def test_shear_is_its_own_inverse():
    grid = torch.randn(2, 5, 7, DIM)
    assert not torch.equal(shear(grid), grid)
    assert torch.equal(shear(shear(grid)), grid)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    directions=st.lists(st.sampled_from(DIRECTIONS), max_size=4),
    num_prefix=st.integers(0, 5),
)
@settings(max_examples=80, deadline=None)
def test_mean_merges_are_average_pooling(
    height, width, directions, num_prefix
):
    grid = (height, width)
    tokens, start = random_tokens(grid, num_prefix)
    merged, state = run(directions, (tokens, start), num_prefix)
    assert torch.equal(merged[:, :num_prefix], tokens[:, :num_prefix])

    expected = to_map(tokens[:, num_prefix:], grid)
    sources = torch.arange(height * width).view(1, 1, height, width)
    groups = [{int(i)} for i in sources.flatten()]
    for direction in directions:
        groups = merge_groups(groups, expected.shape[2:], direction)
        expected = pooled(expected, direction)
    found = to_map(merged[:, num_prefix:], state.grid)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)

    # each position gets back the token that covers it
    restored = restore(merged[:, num_prefix:], state)
    assert restored.shape == (2, DIM, height, width)
    owner = torch.empty(height * width, dtype=torch.long)
    for index, group in enumerate(groups):
        owner[list(group)] = index
    by_hand = merged[:, num_prefix:][:, owner]
    assert torch.equal(to_map(by_hand, grid), restored)


def merge_groups(groups, grid, direction):
    """Which original positions each token covers, by plain sets."""
    height, width = grid
    rows = [groups[i * width : (i + 1) * width] for i in range(height)]
    if direction == 'diagonal':
        for row in rows[1::2]:
            for j in range(0, width - 1, 2):
                row[j], row[j + 1] = row[j + 1], row[j]
        direction = 'vertical'
    if direction in ('horizontal', 'symmetric'):
        rows = [
            [set().union(*row[j : j + 2]) for j in range(0, width, 2)]
            for row in rows
        ]
    if direction in ('vertical', 'symmetric'):
        rows = [
            [set().union(*column) for column in zip(*rows[i : i + 2])]
            for i in range(0, height, 2)
        ]
    return [group for row in rows for group in row]


@pytest.mark.parametrize('direction', SEPARABLE)
def test_bilinear_restore_is_interpolation(direction):
    state = run([direction], random_tokens((5, 7), 0), 0)[1]
    tokens = torch.randn(2, state.grid[0] * state.grid[1], DIM)
    x = to_map(tokens, state.grid)
    size = [n * f for n, f in zip(state.grid, POOL[direction])]
    expected = F.interpolate(x, size=size, mode='bilinear')[:, :, :5, :7]
    assert torch.equal(restore(tokens, state, 'bilinear'), expected)


def test_restoring_what_was_not_reduced_copies_nothing():
    tokens, state = torch.randn(1, 20, DIM), TokenState.start((4, 5))
    found = restore(tokens, state)
    assert found.data_ptr() == tokens.data_ptr()
    assert torch.equal(found.flatten(2).transpose(1, 2), tokens)
    with pytest.raises(ConfigError, match="got 'cubic'"):
        restore(tokens, state, 'cubic')


@pytest.mark.parametrize('direction', DIRECTIONS)
@pytest.mark.parametrize('conv', [False, True])
def test_trained_merge_by_hand(direction, conv):
    """fuse(concat(group)), then the depthwise convolution."""
    merge = TokenMerge(DIM, direction, conv)
    for parameter in merge.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.randn(2, 1 + 6 * 8, DIM)
    found, state = merge(tokens, TokenState.start((6, 8)), 1)
    groups = neighbours(tokens[:, 1:].view(2, 6, 8, DIM), direction)
    expected = groups @ merge.fuse.weight.T + merge.fuse.bias
    if conv:
        expected = F.conv2d(
            expected.permute(0, 3, 1, 2),
            merge.conv.weight,
            merge.conv.bias,
            padding=1,
            groups=DIM,
        ).permute(0, 2, 3, 1)
    torch.testing.assert_close(found[:, 1:], expected.flatten(1, 2))
    assert expected.shape[1:3] == state.grid


def test_identity_convolution_changes_nothing():
    tokens, state = torch.randn(2, 1 + 20, DIM), TokenState.start((4, 5))
    plain = TokenMerge(DIM, 'horizontal')(tokens, state, 1)[0]
    conv = TokenMerge(DIM, 'horizontal', conv=True)(tokens, state, 1)[0]
    assert torch.equal(plain, conv)
