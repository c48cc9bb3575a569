"""Where merges stand: the rule, and the paper's own choices."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.placement import (
    STEP_WORTH,
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
        ('deit_small', 0.41, (5, 9)),
        ('deit_small', 0.43, (5, 8)),
        ('deit_small', 0.545, (4, 6, 9)),
        ('deit_tiny', 0.50, (4, 8, 10)),
    ],
)
def test_the_papers_choices(name, target, layers):
    placement = place_merges(savings(name), 12, 8, target)
    assert placement.layers == layers
    assert target <= placement.reduction < target + 0.004


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


@given(st.integers(2, 14), st.floats(0.01, 0.85), st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_placement_follows_the_rule(depth, target, most):
    most = min(most, depth - 1)
    saves = linear(depth)

    def reach(count):
        """The most within one block of the even spread, by brute force."""
        even = even_layers(count, depth)
        candidates = itertools.combinations(range(1, depth + 1), count)
        return max(
            saves(layers)
            for layers in candidates
            if all(abs(a - b) <= 1 for a, b in zip(layers, even))
        )

    reaching = [n for n in range(1, most + 1) if reach(n) >= target]
    if not reaching:
        best = max(map(reach, range(1, most + 1)))
        with pytest.raises(ConfigError, match=f'save {best:.2%}'):
            place_merges(saves, depth, most, target)
        return
    placement = place_merges(saves, depth, most, target)
    count = len(placement.layers)
    assert count == reaching[0]
    assert placement.reduction == saves(placement.layers) >= target

    def cost(layers):
        even = even_layers(count, depth)
        distance = sum(abs(a - b) for a, b in zip(layers, even))
        return saves(layers) - target + STEP_WORTH * distance

    everywhere = itertools.combinations(range(1, depth + 1), count)
    best = min(cost(c) for c in everywhere if saves(c) >= target)
    assert cost(placement.layers) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize('target', [0, -0.1, 1, 43])
def test_bad_targets_are_named(target):
    with pytest.raises(ConfigError, match=f'between 0 and 1 .* got {target}'):
        place_merges(linear(12), 12, 4, target)


def test_one_block_has_no_room():
    with pytest.raises(ConfigError, match='0 merges'):
        place_merges(linear(1), 1, 0, 0.5)
