"""Whether masked columns become zero, as folding takes for granted.

A masked column's gradient is the lasso's alone. Adam divides it by its root
mean square, so that the column shrinks by one learning rate per step whatever
λ is; by less as long as the second moment remembers the objective's larger
gradients; and swings about zero until the first moment has died down and the
learning rate has fallen. A million steps on ImageNet don't notice any of it.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from mmvitcompress.channels.compactors import (
    Kinds,
    column_norms,
    each_kind,
    kept_channels,
)
from mmvitcompress.channels.schedule import ReductionSchedule

SETTLED = 1e-5
"""Norm of a column, relative to its initial 1, that counts as zero."""
START = 2.0
"""Norm from which a masked column may have to shrink: 1 at the start, but at
large learning rates some have been seen to double before they are masked."""
MEMORY = 100.0
"""Gradients of the objective, in units of the lasso's. Measured: 30 to 1000
for single entries of C in a small ViT learning digits."""


def shrinkage(
    rates: Sequence[float], memory: float = MEMORY, beta2: float = 0.999
) -> float:
    """By how much Adam shrinks a masked column over a number of steps.

    By lr / sqrt(1 + memory² · β₂^t) in step t.

    Args:
        rates: Learning rate of the compactors in each of the steps.
        memory: How many times larger than λ the objective's gradients of
            the column's entries were before it was masked; 0 if Adam's
            moments are cleared then, by :func:`clear_moments_`.
        beta2: Decay of the second moment.
    """
    rates = np.asarray(rates, np.float64)
    powers = beta2 ** np.arange(len(rates))
    return float(np.sum(rates / np.sqrt(1 + memory**2 * powers)))


def convergence_notice(
    schedule: ReductionSchedule,
    rates: Sequence[float],
    memory: float = MEMORY,
    betas: tuple[float, float] = (0.99, 0.999),
    width: int = 4,
    shrink: float = 0.0,
) -> str | None:
    """What keeps masked columns from vanishing, to be told before training.

    Args:
        schedule: When the last channels are masked.
        rates: The compactors' learning rate in every iteration of the run.
        memory: See :func:`shrinkage`.
        betas: Adam's, for the compactors.
        width: Entries of the longest column.
        shrink: By how much masked columns are shortened in each step besides;
            see :func:`~mmvitcompress.channels.compactors.shrink_masked_`.

    Returns:
        A sentence with the remedy, or None if the run will do.
    """
    left = rates[schedule.reached_at :]
    reached = f'the target is reached {len(left)} iterations before the end, '
    if shrink:
        needed = math.ceil(START / shrink)
        if len(left) >= needed:
            return None
        return reached + (
            f'but masked columns may have to shrink by {START:g}, {shrink:g} '
            f'in each of {needed}: lengthen the run or reach the target '
            'earlier or raise shrink'
        )
    covered = shrinkage(left, memory, betas[1])
    if covered < START:
        remedies = ['lengthen the run', 'reach the target earlier']
        if len(left) > 100:
            needed = 1.1 * START / len(left)
            remedies.append(f'let masked columns shrink={needed:.1g} a step')
        if memory and shrinkage(left, 0, betas[1]) >= START:
            remedies.append("clear Adam's moments of masked channels")
        elif covered:
            times = START / covered
            remedies.append(
                f"raise the compactors' learning rate {times * 1.1:.2g} times"
            )
        return reached + (
            f'in which Adam shrinks a masked column by about {covered:.2g} '
            '(one learning rate per step, less as long as it remembers the '
            f"objective's gradients), but some have to shrink by {START:g}: "
            + ' or '.join(remedies)
        )
    # simulated: 600 iterations end at 5e-3, 1 200 at 1e-5, 3 000 at 3e-8
    swings = round(15 / (1 - betas[0]))
    if len(left) < swings:
        return reached + (
            'but masked columns overshoot zero and swing about it for about '
            f'{swings} (15 / (1 − β₁)): lengthen the run or reach the target '
            'earlier or choose a smaller β₁ for the compactors'
        )
    # measured: each entry settles at about 0.05 of the rate, so that columns
    # of 384 ended between 1.0e-5 and 1.3e-5 where the rate ended at 1e-5
    needed = SETTLED / (0.05 * width**0.5)
    if left[-1] > needed * (1 + 1e-3):
        return (
            "the compactors' learning rate ends at "
            f'{left[-1]:.2g}, around which masked columns of {width} entries '
            f'cannot settle below {SETTLED:g}: let it fall to {needed:.1g} or '
            'less'
        )
    return None


@torch.no_grad()
def clear_moments_(
    optimizer: torch.optim.Optimizer,
    compactors: Iterable[Kinds],
    before: Iterable[Kinds],
) -> None:
    """Let Adam forget the objective where channels have just been masked.

    Its second moment remembers gradients that are a hundred to a thousand
    times larger than the lasso, for 2·ln(1000)/(1 − β₂) = 14 000 steps, in
    which a masked column hardly shrinks. The papers don't do this: gradients
    are the same, only their normalisation starts anew. The first moment has to
    go as well, or it would be divided by what is left.

    Args:
        optimizer: Adam or AdamW, changed in place.
        compactors: With their new masks.
        before: The masks that they had before.
    """
    for compactor, mask in zip(each_kind(compactors), each_kind(before)):
        state = optimizer.state.get(compactor.weight, {})
        newly_masked = torch.from_numpy(mask).to(compactor.kept.device)
        newly_masked &= ~compactor.kept
        for name in ('exp_avg', 'exp_avg_sq', 'max_exp_avg_sq'):
            if name in state:
                state[name].masked_fill_(newly_masked.unsqueeze(2), 0)


def unconverged(
    compactors: Sequence[Kinds], bound: float = SETTLED
) -> list[Kinds]:
    """Count masked channels that are not zero yet, by block and kind.

    The sum over all has to be 0 for an export. A column counts as zero up to
    a norm of ``bound``; initially it is 1.
    """
    return count_unconverged(
        kept_channels(compactors), column_norms(compactors), bound
    )


def count_unconverged(
    kept: Sequence[Kinds], norms: Sequence[Kinds], bound: float = SETTLED
) -> list[Kinds]:
    """:func:`unconverged` from masks and column norms at hand."""
    return [
        Kinds(*(int((~m & (n > bound)).sum()) for m, n in zip(mask, norm)))
        for mask, norm in zip(kept, norms)
    ]
