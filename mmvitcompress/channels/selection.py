"""Which channels to mask: CDCP's consistent selection (CAIT III-C).

The paper walks through all channels in ascending score and masks each that
isn't yet, with what consistency demands, until the MACs are reduced enough:

- *head-level*: with a Q, K or V channel goes, in every other head of its
  block, the lowest-scored channel of that kind that is left;
- *attention-level*: with a Q channel goes the K channel of the same head and
  position, and the other way round. Both are scored by their mean.

Not in the paper, where rotary positions turn Q and K: both channels of a pair
go as one (:mod:`~mmvitcompress.channels.constraints`).

Here nothing is walked. What one step masks is known beforehand: in each head
its channels go in ascending order, so the k-th of all heads go together, when
the walk meets the first of them. Every channel thus has a *time*, the rank of
the channel that triggers its step; a selection is a cut through the times.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from mmvitcompress.channels.budget import MacBudget
from mmvitcompress.channels.compactors import Kinds, each_kind
from mmvitcompress.channels.constraints import FREE, Constraints
from mmvitcompress.utils.checks import check_flag, check_positive

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class SelectionRules:
    """How channels are selected.

    Args:
        head_level: Whether all heads of a block must keep the same number of
            channels. Without it each head goes by its own scores, and only as
            many channels as *every* head has masked can be removed.
        attention_level: Whether Q and K must keep the same positions. Without
            it their scores aren't averaged, and only positions that are
            masked in both can be removed.
        min_head_dim: Q/K and V channels that each head keeps at the least.
        min_mlp_dim: Hidden channels that each MLP keeps at the least.
        divisor: Kept widths are multiples of it (or the full width): channels
            wait until as many have come together.
    """

    head_level: bool = True
    attention_level: bool = True
    min_head_dim: int = 8
    min_mlp_dim: int = 64
    divisor: int = 1

    def __post_init__(self):
        for name in ('min_head_dim', 'min_mlp_dim', 'divisor'):
            check_positive(name, getattr(self, name))
        for name in ('head_level', 'attention_level'):
            check_flag(name, getattr(self, name))

    def floor(self, width: int, least: int) -> int:
        """``least``, rounded up to the divisor, but not above ``width``."""
        return min(width, -(-least // self.divisor) * self.divisor)

    def of_units(self, constraints: Constraints) -> 'SelectionRules':
        """The rules for Q and K, in units of them."""
        return replace(
            self,
            min_head_dim=constraints.least(self.min_head_dim),
            divisor=constraints.multiple(self.divisor),
        )

    def floors(
        self,
        widths: Sequence[tuple[int, int, int]],
        constraints: Constraints = FREE,
    ) -> list[tuple[int, int, int]]:
        """(Q/K, V, MLP) widths down to which a selection surely can go."""
        # without attention level Q and K may keep other positions
        both = 1 if self.attention_level else 2
        unit, rules = constraints.unit, self.of_units(constraints)

        def floors(qk: int, v: int, mlp: int) -> tuple[int, int, int]:
            least = unit * rules.floor(qk // unit, rules.min_head_dim)
            lower = (
                min(qk, both * least),
                self.floor(v, self.min_head_dim),
                self.floor(mlp, self.min_mlp_dim),
            )
            kept = map(constraints.keeps, ('q', 'v', 'mlp'))
            each = zip((qk, v, mlp), lower, kept)
            return tuple(full if k else low for full, low, k in each)

        return [floors(*block) for block in widths]


class Selection(NamedTuple):
    """Masks of each block, False for masked channels; the MACs that removing
    them saves (those that can't be removed, see :class:`SelectionRules`, save
    nothing); and the overall reduction reached."""

    kept: list[Kinds]
    saved: int
    reduction: float


def select(
    scores: Sequence[Kinds],
    budget: MacBudget,
    reduction: float,
    rules: SelectionRules = SelectionRules(),
) -> Selection:
    """Mask the lowest-scored channels until a reduction is reached.

    The result depends on nothing but the arguments: ties go by position
    (block, then Q, K, V, MLP, then head, then channel).

    Args:
        scores: Of each block's channels, larger for what should stay, such
            as the column norms of compactors.
        budget: What the channels cost.
        reduction: Overall reduction to reach, as a fraction of the dense
            model's MACs.
        rules: Consistencies, floors and divisor.

    Raises:
        ConfigError: If the floors don't allow it; says what is reachable.
    """
    demands = budget.constraints
    times = _times([demands.joined(b) for b in scores], rules, demands)
    moments, savings = _removals(times, budget, rules)
    order = np.argsort(moments, kind='stable')
    moments, total = moments[order], np.cumsum(savings[order])
    wanted = budget.saving_for(reduction)
    cut, saved = -1, 0
    if wanted > 0:
        most = int(total[-1]) if len(total) else 0
        if wanted > most:
            budget.require(reduction, budget.reduction(most))
        cut = moments[np.searchsorted(total, wanted)]
        saved = int(total[np.searchsorted(moments, cut, 'right') - 1])
    kept = [Kinds(*(time > cut for time in block)) for block in times]
    kept = [demands.spread(block) for block in kept]
    return Selection(kept, saved, budget.reduction(saved))


def _times(
    scores: Sequence[Kinds], rules: SelectionRules, demands: Constraints
) -> list[Kinds]:
    """When each channel is masked: its trigger's rank among all channels."""
    if rules.attention_level:
        means = [(block.q + block.k) / 2 for block in scores]
        scores = [b._replace(q=m, k=m) for b, m in zip(scores, means)]
    flat = np.concatenate([part.ravel() for part in each_kind(scores)])
    ranks = np.empty(len(flat), np.int64)
    ranks[np.argsort(flat, kind='stable')] = np.arange(len(flat))
    of_kind = dict.fromkeys('qk', rules.of_units(demands))
    times, start = [], 0
    for block in scores:
        parts = {}
        for kind, score in block._asdict().items():
            rank = ranks[start : start + score.size].reshape(score.shape)
            start += score.size
            if demands.keeps(kind):
                parts[kind] = np.full_like(rank, _NEVER)
            elif kind == 'k' and rules.attention_level:
                parts[kind] = parts['q']
            else:
                own = of_kind.get(kind, rules)
                parts[kind] = _times_of(rank, kind, own)
        times.append(Kinds(**parts))
    return times


def _times_of(rank: ndarray, kind: str, rules: SelectionRules) -> ndarray:
    """Times (groups, width) of one kind of one block, from the ranks."""
    width = rank.shape[1]
    order = np.argsort(rank, axis=1)
    time = np.take_along_axis(rank, order, axis=1)
    if rules.head_level:
        time[:] = time.min(axis=0)
    time = _bundled(time, rules.divisor)
    least = rules.min_mlp_dim if kind == 'mlp' else rules.min_head_dim
    time[:, width - rules.floor(width, least) :] = _NEVER
    out = np.empty_like(time)
    np.put_along_axis(out, order, time, axis=1)
    return out


def _bundled(time: ndarray, divisor: int) -> ndarray:
    """Let sorted times (groups, width) wait for the last of their bundle.

    Bundles are as large as the divisor; the first one is smaller if that
    makes the width a multiple of it.
    """
    rest = time.shape[1] % divisor
    bundle = (np.arange(time.shape[1]) - rest) // divisor
    return time[:, rest + (bundle + 1) * divisor - 1]


def _removals(
    times: Sequence[Kinds], budget: MacBudget, rules: SelectionRules
) -> tuple[ndarray, ndarray]:
    """Moments at which channels can be removed, and the MACs saved then."""
    moments, savings = [], []
    demands = budget.constraints
    units = demands.unit, 1, 1
    divisors = demands.multiple(rules.divisor), rules.divisor, rules.divisor
    for block, cost in zip(times, budget.costs):
        # a position is free once Q and K are; the k-th channels of a block
        # can be removed once every head has k of them
        parts = (np.maximum(block.q, block.k), block.v, block.mlp)
        for part, saved, unit, divisor in zip(parts, cost, units, divisors):
            free = np.sort(part, axis=1).max(axis=0, keepdims=True)
            free = _bundled(free, divisor)
            free = free[free < _NEVER]
            moments.append(free)
            savings.append(np.full(len(free), saved * unit))
    return np.concatenate(moments), np.concatenate(savings)
