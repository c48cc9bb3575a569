"""Which patches share a token, against merges that are really carried out."""

import numpy as np
import pytest
import torch

from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens import TokenMerge, TokenState
from mmvitcompress.visualization import draw_merges, merge_stages, token_map
from mmvitcompress.visualization.merges import borders, links, token_sizes


@pytest.mark.parametrize('grid', [(4, 4), (5, 3), (1, 7)])
@pytest.mark.parametrize(
    'directions',
    [
        ('horizontal',),
        ('vertical', 'horizontal'),
        ('diagonal',),
        ('horizontal', 'diagonal'),
        ('symmetric', 'vertical'),
    ],
)
def test_tokens_hold_the_patches_that_merges_fuse(grid, directions):
    # patch i is unit vector i, and a fresh merge is a mean: what a token
    # holds is where it isn't zero
    count = grid[0] * grid[1]
    x, state = torch.eye(count)[None], TokenState.start(grid)
    for direction in directions:
        x, state = TokenMerge(count, direction)(x, state, 0)
    held = x[0].detach() > 0  # (tokens, patches)
    tokens = token_map(state)
    assert tokens.shape == grid
    for patch, token in enumerate(tokens.ravel()):
        assert held[:, patch].nonzero().ravel().tolist() == [token]
    assert token_sizes(state).tolist() == held.sum(1).tolist()


def as_set(lines):
    return {frozenset(map(tuple, line)) for line in lines.tolist()}


def test_borders_and_links_of_a_small_grid():
    pair = np.array([[0, 0], [1, 2]])
    frame = {((x, y), (x + 1, y)) for x in (0, 1) for y in (0, 2)}
    frame |= {((x, y), (x, y + 1)) for x in (0, 2) for y in (0, 1)}
    inner = {((0, 1), (1, 1)), ((1, 1), (2, 1)), ((1, 1), (1, 2))}
    assert as_set(borders(pair)) == {frozenset(e) for e in frame | inner}
    assert len(links(pair)) == 0

    crossed = np.array([[0, 1], [1, 0]])
    assert as_set(links(crossed)) == {
        frozenset({(0.5, 0.5), (1.5, 1.5)}),
        frozenset({(1.5, 0.5), (0.5, 1.5)}),
    }


def test_stages_of_a_vit():
    arch = get_arch('deit_small').replace(
        token_merging=dict(layers=(5, 9), first='vertical')
    )
    stages = merge_stages(arch, (48, 80))
    grids = [(3, 5), (2, 5), (2, 3)]
    assert [stage.state.grid for stage in stages] == grids
    assert [stage.state.full_grid for stage in stages] == [(3, 5)] * 3
    assert [stage.direction for stage in stages][1:] == [
        'vertical',
        'horizontal',
    ]
    assert all(stage.stride == 16 for stage in stages)
    titles = ['patches', 'from block 5', 'from block 9']
    assert [stage.title for stage in stages] == titles


def test_stages_of_a_swin():
    arch = get_arch('swin_tiny').replace(token_merging=dict(layers=(5, 6)))
    stages = merge_stages(arch, (224, 160))
    assert [s.state.grid for s in stages] == [(14, 10), (14, 5), (7, 5)]
    assert stages[0].stride == 16
    assert [stage.title for stage in stages] == [
        'start of stage 3',
        'from block 5 of stage 3',
        'from block 6 of stage 3',
    ]


def test_a_model_without_merges_is_refused():
    with pytest.raises(ConfigError, match='merges no tokens'):
        merge_stages(get_arch('deit_tiny'), (32, 32))


def test_a_panel_for_each_picture_and_stage():
    arch = get_arch('vit_micro').replace(
        token_merging=dict(layers=(3, 5), directions='diagonal')
    )
    picture = np.zeros((30, 44, 3), np.uint8)  # patches reach beyond
    figure = draw_merges([picture] * 2, arch)
    assert len(figure.axes) == 6
    assert all(axis.get_xlim() == (0, 44) for axis in figure.axes)
    headings = [axis.get_title() for axis in figure.axes[:3]]
    assert '4 × 6 = 24 tokens' in headings[0]
    assert '1 × 6 = 6 tokens' in headings[2]
