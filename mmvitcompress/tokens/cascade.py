"""How many patches each block keeps, found from the bottom up (VTC-LFC).

Bottom-up cascade pruning (Wang et al., NeurIPS 2022): block by block from the
first one, as many patches leave as an error allows, which each block may raise
by the same; later blocks are searched on what earlier ones have left. The
authors' error is the loss of accuracy on a sample of the training images;
any other serves.
"""

from collections.abc import Callable
from functools import cache

from mmvitcompress.tokens.placement import TARGET_TOLERANCE

FIRST = 0.97
"""What the first block keeps at the least; the authors' 190 of 196."""

ROUNDS = 12
"""Cascades that are tried for a target at the most."""

Numbers = tuple[int, ...]


def cascade(
    error_of: Callable[[Numbers], float],
    blocks: int,
    patches: int,
    allowed: float,
) -> Numbers:
    """The fewest patches that each block can leave.

    Args:
        error_of: The error where blocks 1..``blocks`` leave given numbers of
            patches; it is taken to grow as they fall, so that each number is
            found by bisection.
        blocks: How many blocks there are.
        patches: How many patches arrive at the first.
        allowed: By how much each block may raise the error.

    Returns:
        What each block leaves, never more than the one before.
    """
    counts = (patches,) * blocks
    error = error_of(counts)
    for block in range(blocks):
        least = max(int(patches * FIRST), 1) if block == 0 else 1
        low, high, found = least, counts[block], error
        while low < high:
            middle = (low + high) // 2
            trial = counts[:block] + (middle,) * (blocks - block)
            value = error_of(trial)
            if value <= error + allowed:
                high, found = middle, value
            else:
                low = middle + 1
        counts = counts[:block] + (high,) * (blocks - block)
        error = found
    return counts


def cascades_to(
    error_of: Callable[[Numbers], float],
    reduction_of: Callable[[Numbers], float],
    blocks: int,
    patches: int,
    target: float,
) -> list[Numbers]:
    """Cascades whose reductions close in on a target.

    Args:
        error_of: See :func:`cascade`; asked about ``blocks`` · log₂(patches)
            times for each of up to ``ROUNDS`` cascades.
        reduction_of: What numbers save, as a fraction of the dense MACs.
        blocks: How many blocks there are.
        patches: How many patches arrive at the first.
        target: What is to be saved.

    Returns:
        All that were tried; one comes as near as cascades do.
    """
    known = cache(error_of)
    # powers of 2 between which the error lies that each block is allowed
    low, high = -20.0, 4.0
    tried = []
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        tried.append(cascade(known, blocks, patches, 2**middle))
        missing = target - reduction_of(tried[-1])
        if abs(missing) <= TARGET_TOLERANCE:
            break
        low, high = (middle, high) if missing > 0 else (low, middle)
    return tried
