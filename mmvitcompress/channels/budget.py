"""What channels cost, in exact MACs, and what removing them can save.

The multiply-accumulates of a block are linear in its widths, so the saving of
a channel doesn't depend on which others have gone: one number for each block
and kind. All of it is read off the arch's closed form, merged tokens included.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mmvitcompress.arch.base import dense
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.checks import check_target


class ChannelCosts(NamedTuple):
    """MACs saved by removing channels of one block.

    Attributes:
        qk: One position of Q and K from every head.
        v: One channel of V from every head.
        mlp: One hidden channel of the MLP.
    """

    qk: int
    v: int
    mlp: int


@dataclass(frozen=True)
class MacBudget:
    """The MACs of a model whose channels are to be pruned.

    Reductions are fractions of the *dense, unmerged* model's MACs, and count
    all that has been saved, by tokens as well as by channels: CAIT's targets
    are of this sort.

    Attributes:
        dense: MACs of the dense, unmerged model.
        start: MACs with merged (or slimmed) tokens, before channels are
            pruned.
        costs: What the channels of each block save.
        widths: (Q/K, V, MLP) widths of each block before pruning.
    """

    dense: int
    start: int
    costs: tuple[ChannelCosts, ...]
    widths: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(
        cls,
        arch,
        img_size: int | tuple[int, int] | None = None,
        num_classes: int = 0,
    ) -> 'MacBudget':
        """Budget of an arch at an image size.

        Args:
            arch: A :class:`~mmvitcompress.arch.vit.ViTArch`, a
                :class:`~mmvitcompress.arch.swin.SwinArch`, or anything that
                has their ``macs``, ``replace`` and widths for each block.
            img_size: Image size (H, W), in pixels. Defaults to the arch's.
            num_classes: Outputs of the classifier, if it is to be counted.
                Defaults to 0.
        """
        start = arch.macs(img_size, num_classes)
        kinds = ('qk_dims', 'v_dims', 'mlp_dims')
        widths = tuple(zip(*(getattr(arch, kind) for kind in kinds)))
        costs = []
        for block in range(len(widths)):
            saved = []
            for kind in kinds:
                wider = list(getattr(arch, kind))
                wider[block] += 1
                wider = arch.replace(**{kind: wider})
                saved.append(wider.macs(img_size, num_classes) - start)
            costs.append(ChannelCosts(*saved))
        whole = dense(arch).macs(img_size, num_classes)
        return cls(whole, start, tuple(costs), widths)

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

    def check(
        self, target: float, floors: Sequence[tuple[int, int, int]]
    ) -> None:
        """Raise ConfigError, saying what is reachable, if a target isn't.

        Args:
            target: Overall reduction.
            floors: (Q/K, V, MLP) widths that blocks keep at the least; see
                :meth:`SelectionRules.floors`.
        """
        check_target(target)
        most = self.reduction_at(floors)
        if target > most:
            raise ConfigError(
                f'a reduction of {target:.2%} is out of reach: with every '
                f'block at its floor it is {most:.2%}; lower the target or '
                'the floors, or merge more tokens'
            )
