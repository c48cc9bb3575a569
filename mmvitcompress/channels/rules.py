"""How channels may be selected: consistencies, floors, multiples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmvitcompress.channels.constraints import FREE, Constraints
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.checks import check_flag, check_positive


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
        whole_heads: Whether Q, K and V go by whole heads, as in S²ViTE, of
            which each block keeps at least one; a head is scored by the mean
            of its channels, weighted by what they cost. The rules for
            channels within heads say nothing then. Defaults to False.
    """

    head_level: bool = True
    attention_level: bool = True
    min_head_dim: int = 8
    min_mlp_dim: int = 64
    divisor: int = 1
    whole_heads: bool = False

    def __post_init__(self):
        for name in ('min_head_dim', 'min_mlp_dim', 'divisor'):
            check_positive(name, getattr(self, name))
        for name in ('head_level', 'attention_level', 'whole_heads'):
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
        heads: Sequence[int] | None = None,
    ) -> list[tuple[float, float, int]]:
        """(Q/K, V, MLP) widths down to which a selection surely can go.

        Of whole heads it is the mean over them all, where one of ``heads`` is
        left in each block.

        Raises:
            ConfigError: If whole heads are to go where none can.
        """

        def floor(kind: str, width: int, least: int) -> int:
            kept = constraints.keeps(kind)
            return width if kept else self.floor(width, least)

        if self.whole_heads:
            if heads is None or constraints.keeps('v'):
                raise ConfigError(
                    'whole_heads needs a plain ViT, whose blocks may differ '
                    'in heads and have no norm over all of them: leave it out'
                )
            return [
                (qk / count, v / count, floor('mlp', mlp, self.min_mlp_dim))
                for (qk, v, mlp), count in zip(widths, heads)
            ]
        # without attention level Q and K may keep other positions
        both = 1 if self.attention_level else 2
        unit, rules = constraints.unit, self.of_units(constraints)

        def both_floor(qk: int) -> int:
            if constraints.keeps('q'):
                return qk
            least = rules.floor(qk // unit, rules.min_head_dim)
            return min(qk, both * unit * least)

        return [
            (
                both_floor(qk),
                floor('v', v, self.min_head_dim),
                floor('mlp', mlp, self.min_mlp_dim),
            )
            for qk, v, mlp in widths
        ]
