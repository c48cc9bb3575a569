"""The bottom-up cascade, against a search through all numbers."""

import math

import pytest

from mmvitcompress.tokens.cascade import cascade, cascades_to

WORTH = (0.1, 0.5, 1.0, 2.0)  # what a block's patches are worth, by block
PATCHES = 40


def error_of(counts):
    """The more a block needs of its patches, and the more are gone."""
    shares = [1 - count / PATCHES for count in counts]
    return sum(w * share**2 for w, share in zip(WORTH, shares))


def reduction_of(counts):
    return 1 - sum(counts) / (len(counts) * PATCHES)


def nearest(tried, target):
    return min(tried, key=lambda counts: abs(reduction_of(counts) - target))


def searched(allowed):
    """Block by block, one patch at a time."""
    counts, error = [PATCHES] * 4, 0.0
    for block in range(4):
        least = math.floor(0.97 * PATCHES) if block == 0 else 1
        fewest = counts[block]
        for count in range(fewest, least - 1, -1):
            trial = counts[:block] + [count] * (4 - block)
            if error_of(trial) <= error + allowed:
                fewest = count
        counts[block:] = [fewest] * (4 - block)
        error = error_of(counts)
    return tuple(counts)


@pytest.mark.parametrize('allowed', [0, 1e-3, 0.02, 0.1, 0.4, 10])
def test_each_block_leaves_the_fewest_that_the_error_allows(allowed):
    found = cascade(error_of, 4, PATCHES, allowed)
    assert found == searched(allowed)
    assert [*found] == sorted(found, reverse=True)
    assert found[0] >= math.floor(0.97 * PATCHES)


def test_nothing_allowed_leaves_all():
    assert cascade(error_of, 4, PATCHES, 0) == (PATCHES,) * 4


@pytest.mark.parametrize('target', [0.05, 0.2, 0.4, 0.6])
def test_a_target_is_met_by_some_cascade(target):
    asked = []

    def counted(counts):
        asked.append(counts)
        return error_of(counts)

    tried = cascades_to(counted, reduction_of, 4, PATCHES, target)
    found = nearest(tried, target)
    assert abs(reduction_of(found) - target) < 0.02  # a patch is 0.006
    assert len(asked) == len({*asked}) < 200


def test_what_is_out_of_reach_comes_as_near_as_it_can():
    tried = cascades_to(error_of, reduction_of, 4, PATCHES, 0.99)
    assert nearest(tried, 0.99) == (38, 1, 1, 1)


def test_the_first_block_keeps_what_the_authors_keep():
    assert cascade(lambda counts: 0.0, 3, 196, 1.0) == (190, 1, 1)
