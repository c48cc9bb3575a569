"""Where to merge tokens for a MAC target (CAIT III-B, IV-C1).

The paper spreads the merges evenly over the depth, then shifts layers by small
steps until the reduction fits, and uses the fewest merges that reach the
target. As a rule that leaves nothing open:

1. m merges are spread evenly: the i-th stands before block
   1 + ⌊i·L/(m+1) + ½⌋. For 12 blocks that is (7), (5, 9), (4, 7, 10), ….
2. m is the smallest number with which the target is reached when no merge is
   shifted by more than one block.
3. Merges are shifted as long as a block of shift brings the reduction at least
   one point (1 % of the dense MACs) nearer to the target, from above.

It gives the paper's choices at 224 px: DeiT-Small (5, 9) for 41 %, (5, 8) for
43 %, (4, 6, 9) for 54.5 %, and DeiT-Tiny (4, 8, 10) for 50 %.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.grids import Grid
from mmvitcompress.utils.checks import check_target

STEP_WORTH = 0.01
"""How much nearer to the target one block of shift must bring the reduction,
as a fraction of the dense MACs."""

Layers = tuple[int, ...]


class Placement(NamedTuple):
    """Result of :func:`place_merges`.

    Attributes:
        layers: Blocks before whose attention tokens are merged, from 1.
        reduction: What they save, as a fraction of the dense MACs.
    """

    layers: Layers
    reduction: float


def even_layers(count: int, depth: int) -> Layers:
    """``count`` merges spread evenly over blocks 1..``depth``."""
    return tuple(
        1 + math.floor(i * depth / (count + 1) + 0.5)
        for i in range(1, count + 1)
    )


def most_merges(grid: Grid, depth: int) -> int:
    """How many alternating merges of a grid halve anything, at most.

    The shorter side ends it: a merge along a side of one token would cost a
    layer and save nothing.
    """
    halvings = [(size - 1).bit_length() for size in grid]
    shorter, longer = min(halvings), max(halvings)
    count = 2 * shorter + (1 if longer > shorter else 0)
    return min(count, depth - 1)


def shifted(layers: Layers, depth: int, shift: int) -> Iterator[Layers]:
    """All placements that lie ``shift`` blocks from ``layers`` in total."""
    for steps in _steps(len(layers), shift):
        moved = tuple(layer + step for layer, step in zip(layers, steps))
        ascending = all(a < b for a, b in itertools.pairwise(moved))
        if ascending and moved[0] >= 1 and moved[-1] <= depth:
            yield moved


def _steps(count: int, total: int) -> Iterator[Layers]:
    """All (s_1, …, s_count) with Σ|s_i| = ``total``, the first one last."""
    if count == 0:
        if total == 0:
            yield ()
        return
    for size in range(total + 1):
        for rest in _steps(count - 1, total - size):
            for step in {-size, size}:
                yield (step, *rest)


def place_merges(
    reduction_of: Callable[[Layers], float],
    depth: int,
    most: int,
    target: float,
) -> Placement:
    """The paper's placement for a target.

    Args:
        reduction_of: What merges before given blocks save, as a fraction of
            the dense model's MACs.
        depth: Number of blocks in which merges may stand.
        most: Merges at the most; see :func:`most_merges`.
        target: Reduction to reach, as a fraction of the dense MACs.

    Raises:
        ConfigError: If no number of merges reaches it; says what is reachable.
    """
    check_target(target)
    best = Placement((), 0.0)
    for count in range(1, most + 1):
        even = even_layers(count, depth)
        reach = _most_saving(even, depth, reduction_of)
        if reach.reduction >= target:
            return _shift(even, depth, target, reduction_of, reach)
        best = max(best, reach, key=lambda placement: placement.reduction)
    raise ConfigError(
        f'a reduction of {target:.2%} cannot be reached by merging tokens: '
        f'{len(best.layers)} merges, before blocks {best.layers}, save '
        f'{best.reduction:.2%}; lower the target or prune channels as well'
    )


def _most_saving(
    even: Layers, depth: int, reduction_of: Callable[[Layers], float]
) -> Placement:
    """The earliest placement within one block of the even one."""
    layers, previous = [], 0
    for layer in even:
        previous = max(previous + 1, layer - 1)
        layers.append(previous)
    return Placement(tuple(layers), reduction_of(tuple(layers)))


def _shift(
    even: Layers,
    depth: int,
    target: float,
    reduction_of: Callable[[Layers], float],
    fallback: Placement,
) -> Placement:
    best, best_cost = fallback, math.inf
    for shift in itertools.count():
        if STEP_WORTH * shift >= min(best_cost, 1):
            return best
        for layers in shifted(even, depth, shift):
            reduction = reduction_of(layers)
            cost = reduction - target + STEP_WORTH * shift
            if reduction >= target and cost < best_cost:
                best, best_cost = Placement(layers, reduction), cost
