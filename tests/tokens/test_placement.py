"""Where merges stand: the rule, and the paper's own choices."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.placement import (
    FARTHEST,
    STEP_WORTH,
    TARGET_TOLERANCE,
    even_layers,
    most_merges,
    place_merges,
    shifted,
)


def savings(name, img_size=224, num_classes=1000):
    arch = get_arch(name)
    dense = arch.macs(img_size, num_classes)

    def reduction_of(layers):
        merged = arch.replace(token_merging=dict(layers=layers))
        return 1 - merged.macs(img_size, num_classes) / dense

    return reduction_of


@pytest.mark.parametrize(
    'count, depth, layers',
    [
        (1, 12, (7,)),
        (2, 12, (5, 9)),
        (3, 12, (4, 7, 10)),
        (2, 16, (6, 12)),
        (2, 8, (4, 6)),
        (5, 6, (2, 3, 4, 5, 6)),
    ],
)
def test_even_spread(count, depth, layers):
    assert even_layers(count, depth) == layers


@pytest.mark.parametrize(
    'grid, most', [((14, 14), 8), ((32, 32), 10), ((2, 9), 3), ((1, 5), 1)]
)
def test_merges_end_where_nothing_can_be_halved(grid, most):
    assert most_merges(grid, 99) == most
    assert most_merges(grid, 3) == min(most, 2)


def test_shifts_are_all_neighbours_at_a_distance():
    found = sorted(shifted((2, 4), 5, 2))
    expected = sorted(
        layers
        for layers in itertools.combinations(range(1, 6), 2)
        if abs(layers[0] - 2) + abs(layers[1] - 4) == 2
    )
    assert found == expected
    assert list(shifted((2, 4), 5, 0)) == [(2, 4)]


@pytest.mark.parametrize(
    'name, target, layers',
    [
        # CAIT IV-C1 and Tables II, IV
        ('deit_small', 0.411, (5, 9)),
        ('deit_small', 0.433, (5, 8)),
        ('deit_small', 0.545, (4, 6, 9)),
        ('deit_tiny', 0.50, (4, 8, 10)),
        ('swin_tiny', 0.201, (5, 6)),
        ('swin_small', 0.358, (7, 13)),
    ],
)
def test_the_papers_choices(name, target, layers):
    arch = get_arch(name)
    most = most_merges(*arch.mergeable(224))
    placement = place_merges(savings(name), arch.token_depth, most, target)
    assert placement.layers == layers
    assert placement.reduction == pytest.approx(target, abs=TARGET_TOLERANCE)


def linear(depth, share=0.5):
    """Each merge saves a share of what follows it; a model of the MACs."""

    def reduction_of(layers):
        left, tokens = 0.0, 1.0
        for layer in range(1, depth + 1):
            if layer in layers:
                tokens *= share
            left += tokens
        return 1 - left / depth

    return reduction_of


@given(st.integers(2, 12), st.floats(0.01, 0.95), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_placement_follows_the_rule(depth, target, most):
    """Against all placements that there are."""
    most = min(most, depth - 1)
    saves = linear(depth)

    def shift(layers):
        even = even_layers(len(layers), depth)
        return sum(abs(a - b) for a, b in zip(layers, even))

    def cost(layers):
        over = saves(layers) - target - TARGET_TOLERANCE
        return max(0, over) + STEP_WORTH * shift(layers)

    choices = [
        layers
        for count in range(1, most + 1)
        for layers in itertools.combinations(range(1, depth + 1), count)
        if saves(layers) >= target - TARGET_TOLERANCE
    ]
    if not choices:
        first = tuple(range(1, most + 1))
        with pytest.raises(ConfigError, match=f'save {saves(first):.2%}'):
            place_merges(saves, depth, most, target)
        return
    placement = place_merges(saves, depth, most, target)
    assert placement.layers in choices
    assert placement.reduction == saves(placement.layers)
    near = [layers for layers in choices if shift(layers) <= FARTHEST]
    if near:
        few = min(map(len, near)) + 1
        best = min(cost(layers) for layers in near if len(layers) <= few)
        assert cost(placement.layers) == pytest.approx(best, abs=1e-7)


def test_what_can_be_reached_is_planned():
    """However far from even places: 85 % takes merges in the first block."""
    for target in (0.85, 0.88):
        placement = place_merges(savings('deit_small'), 12, 8, target)
        assert placement.reduction == pytest.approx(target, abs=0.005)


@pytest.mark.parametrize('target', [0, -0.1, 1, 43])
def test_bad_targets_are_named(target):
    with pytest.raises(ConfigError, match=f'between 0 and 1 .* got {target}'):
        place_merges(linear(12), 12, 4, target)


def test_one_block_has_no_room():
    with pytest.raises(ConfigError, match='0 merges'):
        place_merges(linear(1), 1, 0, 0.5)
