"""What channels cost, in exact MACs, and what removing them can save.

The MACs of a block are linear in its widths, so that a channel saves the same
whichever others have gone: one number for each block and kind, read off the
arch's closed form, merged tokens included.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mmvitcompress.arch.base import Arch, dense
from mmvitcompress.channels.constraints import FREE, Constraints
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.checks import check_target


class ChannelCosts(NamedTuple):
    """MACs saved by removing channels of one block."""

    qk: int  # one position of Q and K from every head
    v: int  # one channel of V from every head
    mlp: int  # one hidden channel


@dataclass(frozen=True)
class MacBudget:
    """The MACs of a model whose channels are to be pruned.

    Reductions are fractions of the *dense, unmerged* model's MACs, and count
    what tokens save as well as channels, as CAIT's targets do.

    Attributes:
        dense: MACs of the dense, unmerged model.
        start: MACs with fewer tokens, before channels are pruned.
        costs: What the channels of each block save.
        widths: (Q/K, V, MLP) widths of each block before pruning.
        constraints: What else the arch demands of its channels.
        heads: Heads of each block before pruning; None if no whole one can
            go.
    """

    dense: int
    start: int
    costs: tuple[ChannelCosts, ...]
    widths: tuple[tuple[int, int, int], ...]
    constraints: Constraints = FREE
    heads: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        arch: Arch,
        img_size: int | tuple[int, int] | None = None,
        num_classes: int = 0,
    ) -> 'MacBudget':
        """Budget of an arch at an image size.

        Args:
            arch: With widths for each block.
            img_size: Image size (H, W), in pixels. Defaults to the arch's.
            num_classes: Outputs of the classifier, if it is to be counted.
        """
        start = arch.macs(img_size, num_classes)
        constraints = Constraints.of(arch)
        kinds = ('qk_dims', 'v_dims', 'mlp_dims')
        widths = tuple(zip(*(getattr(arch, kind) for kind in kinds)))

        def cost(kind: str, block: int) -> int:
            # one less where there is: no head may be wider than it was
            step = constraints.unit if kind == 'qk_dims' else 1
            widths = list(getattr(arch, kind))
            sign = -1 if widths[block] > step else 1
            widths[block] += sign * step
            other = arch.replace(**{kind: widths})
            return sign * (other.macs(img_size, num_classes) - start) // step

        costs = tuple(
            ChannelCosts(*(cost(kind, block) for kind in kinds))
            for block in range(len(widths))
        )
        whole = dense(arch).macs(img_size, num_classes)
        heads = None
        if hasattr(arch, 'heads_in'):
            layers = range(1, len(widths) + 1)
            heads = tuple(map(arch.heads_in, layers))
        return cls(whole, start, costs, widths, constraints, heads)

    def reduction(self, saved: int = 0) -> float:
        """Overall reduction once channels worth ``saved`` MACs are gone."""
        return 1 - (self.start - saved) / self.dense

    def saving_for(self, reduction: float) -> int:
        """MACs that channels must save for an overall reduction."""
        allowed = math.floor((1 - reduction) * self.dense + 1e-3)
        return self.start - allowed

    def reduction_at(self, widths: Sequence[tuple[int, int, int]]) -> float:
        """Overall reduction at given (Q/K, V, MLP) widths of each block."""
        saved = sum(
            cost * (before - after)
            for block in zip(self.costs, self.widths, widths)
            for cost, before, after in zip(*block)
        )
        return self.reduction(saved)

    def floors(self, rules) -> list[tuple[int, int, int]]:
        """(Q/K, V, MLP) widths of each block down to which a selection by
        rules surely can go; see :meth:`SelectionRules.floors`."""
        return rules.floors(self.widths, self.constraints, self.heads)

    def check(
        self, target: float, floors: Sequence[tuple[int, int, int]]
    ) -> None:
        """Raise ConfigError if a target is out of reach of the floors, given
        as :meth:`floors` does; says what is reachable."""
        check_target(target)
        self.require(target, self.reduction_at(floors))

    def require(self, target: float, most: float) -> None:
        """Raise ConfigError if a target passes what floors allow."""
        if target > most:
            whole = ''
            if self.constraints.whole:
                kinds = ' and '.join(self.constraints.whole)
                whole = (
                    f' (channels of {kinds} stay, since a norm within the '
                    'blocks sees all of them)'
                )
            raise ConfigError(
                f'a reduction of {target:.2%} is out of reach: with every '
                f'block at its floor it is {most:.2%}{whole}; lower the '
                'target or the floors, or merge more tokens'
            )
