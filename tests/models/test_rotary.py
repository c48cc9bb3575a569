"""Rotary positions: tables by hand, tokens that stand for several patches, and
what of queries and keys may go."""

import math

import pytest
import torch
from token_methods import (
    CASES,
    arch,
    assert_near,
    build,
    images,
    run,
    runs,
    sizes,
)

from mmvitcompress.arch.rotary import Rotary
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedViT, ViT
from mmvitcompress.models.layers.rotary import (
    RotaryPositions,
    Turns,
    turned,
)
from mmvitcompress.tokens import TokenState
from mmvitcompress.tokens.methods.atme import merged
from mmvitcompress.tokens.ranked import Rated
from mmvitcompress.tokens.state import Dropped, Indexed
from mmvitcompress.visualization.loading import token_map

ROTARY = ['rotary', 'gated']


def test_coordinates_by_hand():
    places = RotaryPositions(Rotary(), 8).coordinates((1, 4))
    assert places[0].tolist() == [
        [0, -0.75], [0, -0.25], [0, 0.25], [0, 0.75]
    ]  # fmt: skip
    index = Rotary('index', offset=1.0, x_first=True)
    places = RotaryPositions(index, 8).coordinates((2, 2))
    assert places[0].tolist() == [[1, 1], [2, 1], [1, 2], [2, 2]]
    scaled = RotaryPositions(Rotary('index', reference=(8, 2)), 8)
    assert scaled.coordinates((2, 4))[0, -1].tolist() == [4, 1.5]


def test_turns_by_hand():
    # two frequencies, 1 and 1/√T, for y and as many for x
    positions = RotaryPositions(Rotary('index', temperature=4.0), 8)
    places = torch.tensor([[[2.0, 3.0]]])
    cos, sin = positions(places, 1, torch.float32)
    angles = torch.tensor([2.0, 1.0, 3.0, 1.5])
    assert cos.shape == sin.shape == (1, 2, 4)
    assert cos[0, 0].tolist() == [1] * 4 and sin[0, 0].tolist() == [0] * 4
    torch.testing.assert_close(cos[0, 1], angles.cos())
    torch.testing.assert_close(sin[0, 1], angles.sin())
    # a channel and its partner, by a right angle
    quarter = Turns(torch.zeros(1, 1, 2), torch.ones(1, 1, 2))
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    assert turned(x, quarter).flatten().tolist() == [-3, -4, 1, 2]
    # of three frequencies each head has kept another one
    turns = Turns(*(table[..., 1:] for table in positions(places, 0, x.dtype)))
    index = torch.tensor([[2], [0]])
    x = torch.tensor([1.0, 0.0]).expand(1, 2, 1, 2)
    found = turned(x, turns, index)[0, :, 0]
    expected = [[math.cos(a), math.sin(a)] for a in (1.5, 1.0)]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_where_tokens_stand_by_hand():
    positions = RotaryPositions(Rotary('index'), 8)
    start = TokenState.start((2, 3))

    def where(state, count):
        tokens = torch.zeros(2, 1 + count, 8)
        return positions.of_tokens(tokens, state, 1)

    # of an odd row the last stays alone
    places = where(merged(start, 'horizontal'), 4)
    assert places[0].tolist() == [[0, 0.5], [0, 2], [1, 0.5], [1, 2]]
    # neighbours on a diagonal, then what is left of the last column
    places = where(merged(start, 'diagonal'), 3)
    assert places[0].tolist() == [[0.5, 0.5], [0.5, 0.5], [0.5, 2]]
    index = torch.tensor([[0, 0, 0, 0, 1, 1], [0, 1, 1, 1, 1, 1]])
    state = start.recording(Indexed(index))
    places = where(state, 2)
    assert places[0].tolist() == [[0.25, 0.75], [1, 1.5]]
    torch.testing.assert_close(places[1, 1], torch.tensor([0.6, 1.2]))
    # the third patch is gone, the others are in another order
    order = torch.tensor([[4, 3, 5, 2, 1, 0]]).expand(2, -1)
    state = start.recording(Dropped(order, torch.zeros(2, 1, 8)))
    expected = [[1, 2], [1, 1], [1, 0], [0, 1], [0, 0]]
    assert where(state, 5)[1].tolist() == expected


def test_tables_are_made_once_for_tokens_that_stay_where_they_are():
    calls = []
    for net, methods, count in (
        ('rotary', {}, 1),
        ('rotary', dict(token_merging=dict(layers=(2, 4))), 3),
        ('rotary', dict(token_reorganization=dict(layers=(1, 3))), 3),
        ('rotary', dict(token_halting=dict(scale=2.0, shift=-1.0)), 1),
        ('vit', {}, 0),
    ):
        model = build(net, methods)
        if model.rope is not None:
            forward = model.rope.forward
            model.rope.forward = lambda *a, f=forward: (
                calls.append(a),
                f(*a),
            )[1]
        calls.clear()
        outputs = model.intermediates(images((20, 28)), range(4))
        assert len(calls) == count
        assert all(state.tables is None for _, state in outputs)


@torch.no_grad()
@runs(CASES, ROTARY)
def test_each_token_stands_at_the_mean_of_what_it_covers(net, methods):
    """Against a walk through all patches."""
    model = build(net, methods)
    found, of_tokens = [], model.rope.of_tokens

    def watched(x, state, prefix):
        found.append((x[:, prefix:], state, of_tokens(x, state, prefix)))
        return found[-1][2]

    model.rope.of_tokens = watched
    model(images((18, 26)))
    grid = model.rope.coordinates((5, 7))[0].view(5, 7, 2)
    reduced = {places.shape[1] for *_, places in found} - {35}
    counts = model.arch.counts((18, 26))  # masks leave all of them there
    fewer = {count for counted in counts for count in counted[:2]} - {35}
    assert bool(reduced) == bool(fewer)
    for tokens, state, places in found:
        covers = token_map(tokens, state)
        places = places.expand(2, -1, -1)
        assert places.shape[1] == tokens.shape[1]
        for image, token in torch.cartesian_prod(
            torch.arange(2), torch.arange(places.shape[1])
        ).tolist():
            mean = grid[covers[image] == token].mean(0)
            torch.testing.assert_close(places[image, token], mean)


def test_learned_rates_stand_where_those_that_act_do():
    """While rates learn all patches are there; those that are left must stand
    where they stand once the others are gone."""
    rates = dict(prune=(1, 0.8, 0.7, 0.5), merge=(1, 0.6, 0.6, 0.2))
    learner = build('rotary', dict(token_rates=rates), soft_slimming=True)
    grid = learner.rope.coordinates((5, 7))
    [method] = learner.methods
    part_of = torch.arange(35).repeat(2, 1)
    part_of[0, :3] = 4
    rated = Rated(torch.ones(2, 35), torch.ones(2, 35), part_of)
    state = TokenState.start((5, 7)).noting('token_rates', rated)
    places = method.stand(grid, state)
    torch.testing.assert_close(places[0, 4], grid[0, [0, 1, 2, 4]].mean(0))
    assert torch.equal(places[1], grid[0])
    assert torch.equal(method.stand(grid, TokenState.start((5, 7))), grid)


@torch.no_grad()
def test_a_shift_of_rows_and_columns_changes_nothing():
    """Only distances count, if no token stands outside of the grid."""
    shape = dict(
        embed_dim=24, depth=2, num_heads=3, patch_size=4, img_size=20,
        class_token=False, pos_embed='none',
    )  # fmt: skip
    nets = []
    for offset in (0.0, 5.0):
        rope = dict(coords='index', offset=offset, temperature=20.0)
        torch.manual_seed(0)
        model = ViT(ViTArch(**shape, rope=rope)).double().eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        nets.append(model)
    a, b = (model(images((20, 28)))[0][0] for model in nets)
    assert_near([a], [b], 1e-5)  # tables are in single precision


@torch.no_grad()
@pytest.mark.parametrize('net', ROTARY)
@pytest.mark.parametrize('size', sizes('vit')[:4])
def test_windows_as_large_as_the_grid_are_global_attention(net, size):
    whole = build(net, {})
    shape = arch(net, {}).replace(window_size=3, global_blocks=())
    windowed = CompressedViT(shape).double().eval()
    windowed.load_state_dict(whole.state_dict())
    x = images(size)
    grid = shape.grid(size)
    if max(grid) > 3:
        found, expected = run(windowed, x), run(whole, x)
        assert (found[-1] - expected[-1]).abs().max() > 1e-3
    shape = shape.replace(window_size=max(grid) + 1, global_blocks=())
    for index, block in enumerate(whole.blocks):
        tokens = torch.randn(2, 14 + whole.num_prefix_tokens, 24).double()
        state = TokenState.start((2, 7))
        turns = whole._turns(tokens, state)
        windows = windowed.arch.replace(window_size=7).windows(index, (2, 7))
        assert windows is None
        windows = windowed.arch.windows(index, (2, 7))
        cut = [
            block.attn(_part(tokens, whole, piece), None, None, False, own)
            for piece, own in _pieces(tokens, whole, turns)
        ]
        found = block.attn(tokens, None, windows, False, turns)
        prefix = whole.num_prefix_tokens
        for (piece, _), expected in zip(_pieces(tokens, whole, turns), cut):
            places = torch.tensor(piece) + prefix
            assert_near([found[:, places]], [expected[:, prefix:]], 1e-10)


def _pieces(tokens, net, turns):
    """Patches of a 2×7 grid in each window of 2×3, and their turns."""
    prefix = net.num_prefix_tokens
    for start in (0, 3, 6):
        columns = range(start, min(start + 3, 7))
        piece = [7 * row + column for row in range(2) for column in columns]
        rows = [*range(prefix), *(place + prefix for place in piece)]
        yield piece, Turns(*(table[:, rows] for table in turns))


def _part(tokens, net, piece):
    prefix = net.num_prefix_tokens
    return tokens[:, [*range(prefix), *(place + prefix for place in piece)]]


@torch.no_grad()
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_keeps_whole_tables(dtype):
    model = build('gated', {}).to(dtype)
    assert model.rope.periods.dtype == torch.float32
    turns = model._turns(
        torch.zeros(1, 36, 24, dtype=dtype), TokenState.start((5, 7))
    )
    assert turns.cos.dtype == torch.float32
    full = build('gated', {}).float()
    assert torch.equal(
        turns.cos,
        full._turns(torch.zeros(1, 36, 24), TokenState.start((5, 7))).cos,
    )
    assert model(images((20, 28)).to(dtype))[0].dtype == dtype
    with torch.autocast('cpu', torch.bfloat16):
        assert run(full, images((20, 28)).float())[0].isfinite().all()


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (dict(rope=dict(coords='polar')), 'rope.coords must be one of'),
        (dict(rope=dict(temperature=0)), 'rope.temperature must be'),
        (dict(rope=dict(reference=16)), "give coords='index'"),
        (dict(rope=dict(offset='1')), 'rope.offset must be a number'),
        (dict(rope=dict(x_first=1)), 'rope.x_first must be True'),
        (dict(rope=dict(base=3)), "rope has no key 'base'"),
        (dict(rope='dinov3'), 'rope must be a dict of arguments'),
        (dict(rope={}, head_dim=6), 'multiple of 4'),
        (dict(rope={}, qk_dims=7), 'must be even'),
        (dict(rope={}, qk_dims=10), r'at most head_dim \(8\)'),
        (dict(mlp='glu'), 'mlp must be one of'),
        (dict(mlp_norm=1), 'mlp_norm must be True'),
        (dict(attn_norm='yes'), 'attn_norm must be True'),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        ViTArch(embed_dim=24, depth=2, num_heads=3, **values)


def test_plain_arches_say_nothing_of_it():
    content = ViTArch(embed_dim=24, depth=2, num_heads=3).to_dict()
    assert not {'rope', 'mlp', 'mlp_norm', 'attn_norm'} & {*content}
    assert not any('rope' in name for name in build('vit', {}).state_dict())
    for net in ROTARY:
        shape = arch(net, {})
        assert ViTArch.from_dict(shape.to_dict()) == shape
        names = [n for n in build(net, {}).state_dict() if 'rope' in n]
        # blocks of all pairs have no need to say which
        assert names == [f'blocks.{i}.attn.rope_index' for i in (1, 2, 3)]
