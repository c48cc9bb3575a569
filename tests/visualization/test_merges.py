"""Which patches share a token, against merges that are really carried out."""

import numpy as np
import pytest
import torch

from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedSwin
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import TokenMerge, TokenState
from mmvitcompress.visualization import (
    class_attention,
    draw_merges,
    merge_stages,
    token_map,
)
from mmvitcompress.visualization.merges import (
    MergeStage,
    borders,
    in_order,
    links,
    mean_colours,
    scattered,
)


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
    tokens = token_map(x, state)[0]
    assert tokens.shape == grid
    for patch, token in enumerate(tokens.ravel()):
        assert held[:, patch].nonzero().ravel().tolist() == [token]


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


def test_tokens_that_left_or_do_not_hang_together():
    tokens = np.array([[7, 7, -1], [2, 4, 2]])
    ordered = in_order(tokens)
    assert ordered.tolist() == [[0, 0, -1], [1, 2, 1]]
    assert scattered(ordered)
    assert not scattered(np.array([[0, 0], [1, 2]]))
    assert not scattered(np.array([[0, 1], [1, 0]]))
    # however many contacts the others have
    far = np.array([[0, 0, 1, 0], [0, 0, 1, 1]])
    assert scattered(far)
    ring = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert not scattered(ring)
    assert len(links(np.array([[-1, 0], [1, -1]]))) == 0
    picture = np.arange(0, 72, 2, dtype=np.uint8).reshape(2, 6, 3)
    means = mean_colours(picture, np.array([[0, -1, 0]]), 2)
    # columns 0, 1, 4, 5 of both rows; those between have left
    assert means[:, [0, 1, 4, 5]].tolist() == [[[33, 35, 37]] * 4] * 2
    assert np.array_equal(means[:, 2:4], picture[:, 2:4])


@pytest.fixture
def images():
    generator = torch.manual_seed(0)
    return [torch.randn(3, *size, generator=generator) for size in SIZES]


SIZES = ((24, 40), (40, 16))


def test_stages_of_a_vit(make_vit, images):
    merging = dict(layers=(2, 4), first='vertical')
    stages = merge_stages(make_vit(token_merging=merging), images)
    titles = ['patches', 'from block 2', 'from block 4']
    assert [stage.title for stage in stages] == titles
    # two images of their own size, in the same stages
    counts = [[each.max() + 1 for each in stage.tokens] for stage in stages]
    assert counts == [[15, 10], [10, 6], [6, 3]]
    assert stages[1].tokens[1].tolist() == [
        *([0, 1], [0, 1], [2, 3], [2, 3], [4, 5])
    ]


def test_patches_that_leave_are_part_of_it(make_vit, images):
    slim = dict(base_layer=1, layers=(2, 3), keep_rate=0.5)
    vit = make_vit(patch_slimming=slim)
    stages = merge_stages(vit, images)
    assert [s.title for s in stages[1:]] == ['from block 3', 'from block 4']
    outputs = ViT.forward(vit, images[0][None], take=(2, 3))
    for stage, (tokens, state) in zip(stages[1:], outputs):
        left = np.flatnonzero(stage.tokens[0] >= 0)
        stays = state.undo[-1].order[0, : tokens.shape[1] - 1]
        assert left.tolist() == stays.sort().values.tolist()
        assert stage.tokens[0].max() + 1 == len(left)


def test_similar_tokens_that_merged(make_vit, images):
    vit = make_vit(token_matching=dict(r=3))
    stages = merge_stages(vit, images[:1])
    assert [stage.tokens[0].max() + 1 for stage in stages] == [15, 12, 9, 6]
    outputs = ViT.forward(vit, images[0][None], take=(0, 1, 2))
    for stage, (tokens, state) in zip(stages[1:], outputs):
        held = in_order(token_map(tokens[:, 1:], state)[0].numpy())
        assert stage.tokens[0].tolist() == held.tolist()
        assert (np.bincount(held.ravel()) > 0).all()
    # what tokens receive of the attention is shared by their patches
    shares = class_attention(vit, images[0][None])[0]
    last = stages[-1].tokens[0]
    assert all(len(set(shares[last == t].tolist())) == 1 for t in range(6))
    assert 0 < shares.sum() < 1
    assert {'before', 'after'}.isdisjoint(vars(vit.methods[0]))


def test_stages_of_a_swin():
    arch = dict(
        embed_dim=8, depths=(1, 1, 4), num_heads=(1, 2, 4), window_size=2
    )
    swin = CompressedSwin(arch, token_merging=dict(layers=(1, 3)))
    stages = merge_stages(swin, torch.randn(1, 3, 96, 64))
    assert [stage.title for stage in stages] == [
        'start of stage 3',
        'from block 1 of stage 3',
        'from block 3 of stage 3',
    ]
    assert [s.tokens[0].max() + 1 for s in stages] == [24, 12, 6]
    assert all(stage.tokens[0].shape == (6, 4) for stage in stages)
    assert not any(module._forward_hooks for module in swin.modules())


def test_a_model_without_merges_is_refused(make_vit, images):
    with pytest.raises(ConfigError, match='merges no tokens'):
        merge_stages(make_vit(), images)


def test_a_panel_for_each_picture_and_stage(make_vit, images):
    merging = dict(layers=(2, 3), directions='diagonal')
    stages = merge_stages(make_vit(token_merging=merging), images)
    # patches reach beyond
    pictures = [np.zeros((h - 2, w - 4, 3), np.uint8) for h, w in SIZES]
    figure = draw_merges(pictures, stages, 8)
    assert [axis.get_xlim() for axis in figure.axes] == [
        *[(0, 36)] * 3,
        *[(0, 12)] * 3,
    ]
    headings = [axis.get_title() for axis in figure.axes]
    assert headings[:2] == [
        'patches\n15 tokens',
        'from block 2\n10 of 15 tokens',
    ]
    assert headings[4] == 'from block 2\n6 of 10 tokens'
    # equal ones stand at the top only
    same = [MergeStage(stage.title, stage.tokens[:1] * 2) for stage in stages]
    axes = draw_merges(pictures[:1] * 2, same, 8).axes
    assert axes[3].get_title() == ''
