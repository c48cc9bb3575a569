"""DiffRate: how many tokens each block prunes and merges is learned.

Differentiable compression rates (Chen et al., "DiffRate: Differentiable
Compression Rate for Efficient Vision Transformers", ICCV 2023). In every
block, between attention and MLP, patches are ranked by the attention of
[CLS]. The last of them leave; the last of those that stay merge into the ones
before that they are most like. Both numbers are fixed for each block, and
the same for all images; a mask over ranks learns them, see ranked.py.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from math import prod
from typing import ClassVar

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.placement import nearest_rate
from mmvitcompress.tokens.ranked import RatedTokens, RateLearner
from mmvitcompress.tokens.spec import (
    Counts,
    Size,
    TokenSpec,
    keep_ratio,
    kept_share,
)
from mmvitcompress.utils.checks import check_positive_number, is_number


@dataclass(frozen=True)
class TokenRates(TokenSpec):
    """How many patches stay in each block.

    Args:
        prune: For each block the fraction of all patches of an image that is
            left once the last have gone, in (0, 1]. Defaults to what follows
            from ``keep_rate``.
        merge: The same once the next to last have merged.
        keep_rate: In place of both: each block keeps this share of its
            patches; of the rest one half is pruned, the other merges.
            Defaults to None.
        target: What the rates shall save when they are learned, as a fraction
            of the dense model's MACs. Defaults to 0.4.
        macs_weight: Of the squared miss of the target. Defaults to 100, about
            the authors' 5 for DeiT-Small's GMACs.
    """

    key: ClassVar[str] = 'token_rates'
    start: ClassVar[str] = 'token rates learn from where they are given'
    learned_only: ClassVar[tuple[str, ...]] = ('rates',)

    prune: tuple[float, ...] | None = None
    merge: tuple[float, ...] | None = None
    keep_rate: float | None = None
    target: float = field(default=0.4, repr=False)
    macs_weight: float = field(default=100.0, repr=False)

    def __post_init__(self):
        given = [self.prune is not None, self.merge is not None]
        if any(given) != all(given) or any(given) == (
            self.keep_rate is not None
        ):
            raise ConfigError(
                'token_rates needs both prune and merge, or keep_rate alone, '
                f'but got prune={self.prune}, merge={self.merge} and '
                f'keep_rate={self.keep_rate}'
            )
        if not is_number(self.target) or not 0 < self.target < 1:
            raise ConfigError(
                f'token_rates.target must lie in (0, 1), but got '
                f'{self.target!r}'
            )
        check_positive_number('token_rates.macs_weight', self.macs_weight)
        if self.keep_rate is not None:
            keep_ratio('token_rates.keep_rate', self.keep_rate)
            return
        for name in ('prune', 'merge'):
            rates = tuple(getattr(self, name))
            object.__setattr__(self, name, rates)
            ratios = [keep_ratio(f'token_rates.{name}', r) for r in rates]
            object.__setattr__(self, f'_{name}', ratios)
        if len(self.prune) != len(self.merge):
            raise ConfigError(
                'token_rates.prune and merge must name as many blocks, but '
                f'got {len(self.prune)} and {len(self.merge)}'
            )

    @classmethod
    def even(cls, depth: int, keep_rate: float, **kwargs) -> 'TokenRates':
        """Rates of ``depth`` blocks that keep an equal share each."""
        before = [keep_rate**layer for layer in range(depth)]
        prune = tuple(left * (1 + keep_rate) / 2 for left in before)
        merge = tuple(left * keep_rate for left in before)
        return cls(prune, merge, **kwargs)

    @classmethod
    def for_target(
        cls, arch, img_size, reduction_of, target: float, most: float = 1.0
    ) -> 'TokenRates':
        even = partial(cls.even, arch.token_depth)
        return nearest_rate(even, reduction_of, target, most)

    def is_empty(self) -> bool:
        if self.keep_rate is not None:
            return self.keep_rate == 1
        return min(self.prune + self.merge, default=1) == 1

    def resolved(self, arch) -> 'TokenRates':
        if self.keep_rate is None:
            return self
        even = self.even(arch.token_depth, self.keep_rate)
        return replace(even, target=self.target, macs_weight=self.macs_weight)

    def check(self, arch) -> None:
        if len(self.prune) != arch.token_depth:
            raise ConfigError(
                'token_rates.prune and merge must name a rate for each of '
                f'{arch.token_depth} blocks, but got {len(self.prune)}'
            )

    def layers_reduced(self) -> list[int]:
        """Blocks in which the rates leave fewer patches than before."""
        rates = [1.0, *map(min, self.prune, self.merge)]
        for layer in range(1, len(rates)):
            rates[layer] = min(rates[layer - 1 : layer + 1])
        return [i for i, (a, b) in enumerate(pairwise(rates), 1) if b < a]

    def ungridded_after(self, depth: int) -> int | None:
        return self.layers_reduced()[0]

    def kept(self, layer: int, patches: int, whole: int) -> tuple[int, int]:
        """How many of ``patches`` block ``layer`` doesn't prune, and how many
        of those don't merge, in an image of ``whole``."""
        pruned = min(patches, kept_share(self._prune[layer - 1], whole))
        merged = min(pruned, kept_share(self._merge[layer - 1], whole))
        return pruned, merged

    def between(self, layer: int, size: Size) -> Size:
        whole = prod(size.grid)
        return size._replace(patches=self.kept(layer, size.patches, whole)[1])

    def macs(self, layer: int, counts: Counts, arch, norm: int) -> int:
        if counts.mlp == counts.attention:
            return 0
        whole = prod(counts.grid)
        pruned, merged = self.kept(layer, counts.attention, whole)
        tokens = counts.attention + arch.num_prefix_tokens
        # the row of [CLS], and what is like what
        row = tokens * arch.heads_in(layer) * arch.widths(layer)[0]
        return row + (pruned - merged) * merged * arch.token_dim

    def build(
        self, arch, depth: int, training: bool = False
    ) -> 'RatedTokens | None':
        if training:
            return RateLearner(self, arch, depth)
        if self.layers_reduced()[0] > depth:
            return None
        return RatedTokens(self, arch)
