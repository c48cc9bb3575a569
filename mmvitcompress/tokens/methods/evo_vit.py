"""Evo-ViT: some patches take the slow way through a block, others a fast one.

Slow-fast token evolution (Xu et al., "Evo-ViT: Slow-Fast Token Evolution for
Dynamic Vision Transformer", AAAI 2022). The patches that [CLS] attends to most
go through the whole block, together with one token that represents the
others; the others are updated by what the block adds to that one. All patches
keep their places, so that maps need no restoring.
"""

from dataclasses import dataclass
from math import prod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.method import Attended, TokenMethod
from mmvitcompress.tokens.placement import nearest_rate
from mmvitcompress.tokens.spec import (
    Counts,
    Size,
    TokenSpec,
    keep_ratio,
    kept_share,
)
from mmvitcompress.tokens.state import (
    Indexed,
    TokenState,
    fused_places,
    split_lowest,
    take,
)
from mmvitcompress.utils.checks import check_layers, is_number, layer_tuple


@dataclass(frozen=True)
class TokenEvolution(TokenSpec):
    """Where and how many patches take the slow way.

    Args:
        first: The first block, counted from 1, that not all go through.
            Defaults to 5.
        keep_rate: Fraction of the patches that go through it and those after,
            in (0, 1]. Defaults to 0.5.
        tradeoff: How much a block's own attention counts in the running mean
            over blocks by which patches are chosen, in (0, 1]. Defaults to
            0.5.
        stages: Blocks before which patches are chosen anew; each other block
            goes on with those of the block before. Defaults to none: they
            are chosen before each block.
    """

    key: ClassVar[str] = 'token_evolution'

    first: int = 5
    keep_rate: float = 0.5
    tradeoff: float = 0.5
    stages: tuple[int, ...] = ()

    def __post_init__(self):
        ratio = keep_ratio('token_evolution.keep_rate', self.keep_rate)
        object.__setattr__(self, '_ratio', ratio)
        if not is_number(self.tradeoff) or not 0 < self.tradeoff <= 1:
            raise ConfigError(
                'token_evolution.tradeoff must lie in (0, 1], but got '
                f'{self.tradeoff!r}'
            )
        if type(self.first) is not int or self.first < 2:
            raise ConfigError(
                'token_evolution.first must be a whole number of at least 2, '
                'since patches are chosen by the attention of the block '
                f'before, but got {self.first!r}'
            )
        stages = layer_tuple('token_evolution.stages', self.stages)
        object.__setattr__(self, 'stages', stages)
        if stages and stages[0] != self.first:
            raise ConfigError(
                'token_evolution.stages must begin with the first block of '
                f'the slow and the fast way, {self.first}, but got {stages}'
            )

    @classmethod
    def for_target(
        cls, arch, img_size, reduction_of, target: float, most: float = 1.0
    ) -> 'TokenEvolution':
        return nearest_rate(cls, reduction_of, target, most)

    def is_empty(self) -> bool:
        return self.keep_rate == 1

    def check(self, arch) -> None:
        name = 'token_evolution.'
        check_layers(f'{name}first', [self.first], arch.token_depth)
        check_layers(f'{name}stages', self.stages, arch.token_depth)

    def ungridded_after(self, depth: int) -> int | None:
        # chosen by the attention of the block before, to the same patches
        return self.first - 1

    def slow(self, patches: int) -> int:
        """How many of ``patches`` take the slow way: ⌈ρ·n⌉, or all if only
        one would not."""
        slow = kept_share(self._ratio, patches)
        return patches if patches - slow < 2 else slow

    def before(self, layer: int, size: Size) -> Size:
        slow = self.slow(size.patches)
        if layer < self.first or slow == size.patches:
            return size
        return size._replace(patches=slow + 1)

    def rejoin(self, layer: int, size: Size) -> Size:
        if layer < self.first:
            return size
        return size._replace(patches=prod(size.grid))

    def attended_in(self, layer: int, depth: int) -> bool:
        """Whether the attention of block ``layer`` chooses for a later one."""
        return self.first - 1 <= layer < depth

    def macs(self, layer: int, counts: Counts, arch, norm: int) -> int:
        macs = 0
        if self.attended_in(layer, arch.token_depth):
            tokens = counts.attention + arch.num_prefix_tokens
            macs += tokens * arch.heads_in(layer) * arch.widths(layer)[0]
        if layer >= self.first and counts.attention != counts.left:
            # the sum that represents the others
            macs += (counts.left - counts.attention + 1) * arch.token_dim
        return macs

    def begins(self) -> int:
        return self.first

    def build(
        self, arch, depth: int, training: bool = False
    ) -> 'SlowFastTokens':
        return SlowFastTokens(self, arch, depth)


class Ways(NamedTuple):
    """Who takes which way through a block."""

    slow: Tensor  # (B, k), places in the grid
    fast: Tensor  # (B, n - k)
    waiting: Tensor  # (B, n - k, D), those of the fast way
    representative: Tensor  # (B, 1, D), as it entered the block


class Evolved(NamedTuple):
    """What is known of patches between blocks, and of a block's two ways."""

    attention: Tensor  # (B, n), the running mean of [CLS]'s
    ways: Ways | None = None


class SlowFastTokens(TokenMethod):
    """Sends patches through blocks by two ways."""

    def __init__(self, spec: TokenEvolution, arch, depth: int):
        super().__init__(arch.num_prefix_tokens)
        self.spec = spec
        self.within = frozenset(
            layer
            for layer in range(1, depth + 1)
            if spec.attended_in(layer, arch.token_depth)
        )

    def before(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        if layer < self.spec.first:
            return x, state
        prefix, patches = x.split([self.num_prefix, prod(state.grid)], 1)
        count = self.spec.slow(patches.shape[1])
        if count == patches.shape[1]:
            return x, state
        attention, ways = state.notes[self.spec.key]
        stages = self.spec.stages
        if ways is None or not stages or layer in stages:
            slow, fast = split_lowest(attention, count)
        else:
            slow, fast = ways.slow, ways.fast
        waiting = take(patches, fast)
        weights = attention.gather(1, fast)
        weights = weights / weights.sum(1, keepdim=True)
        one = weights.to(x.dtype).unsqueeze(1) @ waiting
        ways = Ways(slow, fast, waiting, one)
        x = torch.cat([prefix, take(patches, slow), one], 1)
        record = Indexed(fused_places(slow, patches.shape[1]))
        state = state.recording(record)
        return x, state.noting(self.spec.key, Evolved(attention, ways))

    def between(
        self, layer: int, x: Tensor, state: TokenState, attention: Attended
    ) -> tuple[Tensor, TokenState]:
        row = attention.class_row(self.num_prefix).mean(1).detach()
        row = row[:, self.num_prefix :]
        known = state.notes.get(self.spec.key)
        if known is not None:
            share, (mean, ways) = self.spec.tradeoff, known
            if ways is None:
                row = (1 - share) * mean + share * row
            else:
                # the last is the representative's
                row = share * row[:, :-1]
                row = row + (1 - share) * mean.gather(1, ways.slow)
                row = mean.scatter(1, ways.slow, row)
            known = known._replace(attention=row)
        return x, state.noting(self.spec.key, known or Evolved(row))

    def rejoin(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        known = state.notes.get(self.spec.key)
        if layer < self.spec.first or known.ways is None:
            return x, state
        slow, fast, waiting, before = known.ways
        moved = waiting + (x[:, -1:] - before)
        places = torch.cat([slow, fast], 1).argsort(1)
        patches = torch.cat([x[:, self.num_prefix : -1], moved], 1)
        x = torch.cat([x[:, : self.num_prefix], take(patches, places)], 1)
        return x, state.having(undo=state.undo[:-1])
