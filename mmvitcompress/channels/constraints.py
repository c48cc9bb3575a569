"""What an arch demands of its channels beside equal heads: the third
consistency.

Rotary positions turn queries and keys pair of channels by pair. One of a pair
alone can't go: turned, the other one stands in both. So the pair goes as one:
it is scored by its mean, masked, counted and removed together, in all that
selects. Partners are half a head apart, before pruning and after.

A norm over hidden channels, over a head's queries or keys, or over the heads'
results sees all of them: what such a norm follows is kept whole.
"""

from math import lcm
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from mmvitcompress.channels.compactors import Kinds

_KINDS = dict(qk_dims='qk', v_dims='v', mlp_dims='mlp')


class Constraints(NamedTuple):
    """Of one arch.

    Attributes:
        unit: How many channels of queries and keys go as one.
        whole: Kinds that lose none: 'qk', 'v', 'mlp'.
    """

    unit: int = 1
    whole: tuple[str, ...] = ()

    @classmethod
    def of(cls, arch) -> 'Constraints':
        """Those of an arch."""
        return cls(arch.qk_unit, tuple(_KINDS[n] for n in arch.kept_whole))

    def keeps(self, kind: str) -> bool:
        """Whether channels of a kind ('q', 'k', 'qk', 'v', 'mlp') all stay."""
        return ('qk' if kind in 'qk' else kind) in self.whole

    def multiple(self, divisor: int) -> int:
        """In how many units of Q and K widths are multiples of a divisor."""
        return lcm(divisor, self.unit) // self.unit

    def least(self, channels: int) -> int:
        """In how many units of Q and K there are so many channels."""
        return -(-channels // self.unit)

    def joined(self, block: Kinds) -> Kinds:
        """Scores with one for each unit of Q and K: the mean."""
        return self._each(block, lambda x: x.mean(axis=1))

    def any_of(self, block: Kinds) -> Kinds:
        """Masks with one for each unit of Q and K: whether any is kept."""
        return self._each(block, lambda x: x.any(axis=1))

    def spread(self, block: Kinds) -> Kinds:
        """The same for each channel again."""
        if self.unit == 1:
            return block
        q, k = (np.tile(x, (1, self.unit)) for x in (block.q, block.k))
        return block._replace(q=q, k=k)

    def _each(self, block: Kinds, join) -> Kinds:
        if self.unit == 1:
            return block
        q, k = (
            join(x.reshape(len(x), self.unit, -1)) for x in (block.q, block.k)
        )
        return block._replace(q=q, k=k)


FREE = Constraints()
"""None: each channel goes by itself."""


def kept_units(mask: ndarray, unit: int) -> ndarray:
    """(heads, kept), which units of Q and K are kept, by a consistent mask
    (heads, width)."""
    units = mask.reshape(len(mask), unit, -1)[:, 0]
    return np.nonzero(units)[1].reshape(len(mask), -1)
