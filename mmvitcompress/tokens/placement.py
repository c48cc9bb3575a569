"""Where to merge tokens for a MAC target (CAIT III-B, IV-C1).

The paper spreads the merges evenly over the depth, then shifts layers by small
steps until the reduction fits; it takes the nearest one: its own 43.3 % is
43.14 %. As a rule that leaves nothing open:

1. m merges are spread evenly: the i-th stands before block
   1 + ⌊i·L/(m+1) + ½⌋. For 12 blocks that is (7), (5, 9), (4, 7, 10), ….
2. What saves less than the target, by more than the tolerance, is no choice.
3. A block of shift away from the even places costs as much as saving one point
   (1 % of the dense MACs) more than the target and the tolerance. The cheapest
   choice is taken, of equal ones the nearest, among those of the smallest
   number of merges that reaches the target and of one more.

It gives the paper's choices at 224 px: DeiT-Small (5, 9) for 41.1 %, (5, 8)
for 43.3 %, (4, 6, 9) for 54.5 %, DeiT-Tiny (4, 8, 10) for 50 %, Swin-Tiny's
(5, 6) for 20.1 %.
"""

import bisect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.grids import Grid
from mmvitcompress.utils.checks import check_target

TARGET_TOLERANCE = 0.0025
"""By how much the reduction may miss the target, as a fraction of the dense
MACs: the papers' figures are of this precision."""

STEP_WORTH = 0.01
"""How much nearer to the target one block of shift must bring the reduction,
as a fraction of the dense MACs."""

FARTHEST = 4
"""Blocks of shift in total up to which all placements are compared."""

TIE = 1e-9  # what decides between placements of equal cost

Layers = tuple[int, ...]


class Placement(NamedTuple):
    """Merges before some blocks, counted from 1, and what they save, as a
    fraction of the dense MACs."""

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
    shorter, longer = sorted((size - 1).bit_length() for size in grid)
    return min(2 * shorter + (longer > shorter), depth - 1)


def shifted(layers: Layers, depth: int, shift: int) -> Iterator[Layers]:
    """All placements that lie ``shift`` blocks from ``layers`` in total."""
    for steps in _steps(len(layers), shift):
        moved = tuple(layer + step for layer, step in zip(layers, steps))
        ascending = all(a < b for a, b in itertools.pairwise(moved))
        if ascending and moved[0] >= 1 and moved[-1] <= depth:
            yield moved


def _steps(count: int, total: int) -> Iterator[Layers]:
    """All (s_1, …, s_count) with Σ|s_i| = ``total``."""
    for moved in itertools.combinations_with_replacement(range(count), total):
        sizes = [moved.count(index) for index in range(count)]
        yield from itertools.product(*({-size, size} for size in sizes))


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
        target: Reduction to reach.

    Raises:
        ConfigError: If no number of merges reaches it; says what is reachable.
    """
    check_target(target)
    for count in range(1, most + 1):
        fewest = _cheapest(reduction_of, depth, count, target)
        if fewest is None:
            continue
        more = None
        if count < most:
            more = _cheapest(reduction_of, depth, count + 1, target)
        return min(fewest, more or fewest, key=lambda choice: choice[0])[1]
    return _pull(reduction_of, depth, most, target)


def _cheapest(
    reduction_of: Callable[[Layers], float],
    depth: int,
    count: int,
    target: float,
) -> tuple[float, Placement] | None:
    """The cost and the placement of the cheapest choice of ``count`` merges;
    None if none of those nearby reaches the target."""
    even, best = even_layers(count, depth), None
    for shift in range(FARTHEST + 1):
        if best is not None and STEP_WORTH * shift >= best[0]:
            break
        for layers in shifted(even, depth, shift):
            reduction = reduction_of(layers)
            over = reduction - target
            cost = max(0.0, over - TARGET_TOLERANCE) + STEP_WORTH * shift
            cost += TIE * abs(over)
            if over >= -TARGET_TOLERANCE and (best is None or cost < best[0]):
                best = cost, Placement(layers, reduction)
    return best


def _pull(
    reduction_of: Callable[[Layers], float],
    depth: int,
    most: int,
    target: float,
) -> Placement:
    """The fewest merges that can reach a target, moved forward one by one
    until they do."""
    for count in range(1, most + 1):
        if (
            reduction_of(tuple(range(1, count + 1)))
            < target - TARGET_TOLERANCE
        ):
            continue
        layers = even_layers(count, depth)
        while (reduction := reduction_of(layers)) < target - TARGET_TOLERANCE:
            layers = max(_one_earlier(layers), key=reduction_of)
        return Placement(layers, reduction)
    first = tuple(range(1, most + 1))
    raise ConfigError(
        f'a reduction of {target:.2%} cannot be reached by merging tokens: '
        f'{most} merges, before blocks {first}, save '
        f'{reduction_of(first):.2%}; lower the target or prune channels as '
        'well'
    )


def _one_earlier(layers: Layers) -> Iterator[Layers]:
    """Placements in which one merge stands one block earlier."""
    for index, (before, layer) in enumerate(zip((0, *layers), layers)):
        if layer - 1 > before:
            yield (*layers[:index], layer - 1, *layers[index + 1 :])


def place_evenly(
    reduction_of: Callable[[Layers], float],
    depth: int,
    most: int,
    share: float,
    target: float,
) -> Placement:
    """Even merges that come nearest to a share without passing a target."""
    even = [even_layers(count, depth) for count in range(most + 1)]
    choices = [Placement(e, reduction_of(e) if e else 0.0) for e in even]
    fitting = [c for c in choices if c.reduction <= target]
    return min(fitting, key=lambda c: abs(c.reduction - share))


def nearest(
    specs: Sequence,
    reduction_of: Callable[..., float],
    target: float,
    most: float,
):
    """The spec whose reduction is nearest to a target and not above ``most``.

    Raises:
        ConfigError: If ``most`` is 1, since nothing else saves more, and the
            target is out of reach.
    """
    saved = {spec: reduction_of(spec) for spec in specs}
    fitting = [spec for spec in specs if saved[spec] <= most] or [*specs]
    best = min(fitting, key=lambda spec: abs(saved[spec] - target))
    if most == 1 and max(saved.values()) < target - TARGET_TOLERANCE:
        raise ConfigError(
            f'a reduction of {target:.2%} cannot be reached by {best.key}: '
            f'the most is {max(saved.values()):.2%}; lower the target or '
            'prune channels as well'
        )
    return best


def nearest_rate(
    method: Callable,
    reduction_of: Callable[..., float],
    target: float,
    most: float,
):
    """:func:`nearest` of a method's specs over ``keep_rate``, in steps of
    0.001; the higher the rate the less is saved."""
    rates = [step / 1000 for step in range(1, 1001)]
    found = bisect.bisect_left(
        rates, -target, key=lambda r: -reduction_of(method(keep_rate=r))
    )
    specs = [method(keep_rate=r) for r in rates[max(0, found - 1) : found + 1]]
    return nearest(specs, reduction_of, target, most)
