"""LFE: patches that hold little of the image's low frequencies leave.

Low-frequency energy (Wang et al., "VTC-LFC: Vision Transformer Compression
with Low-Frequency Components", NeurIPS 2022). In some blocks, between
attention and MLP, the features of the patches, in their order, go through a
filter that takes the highest frequencies out. Patches are scored by the share
of their energy that is left, times the attention that [CLS] pays them, as the
authors' code has it; the lowest leave.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.cascade import cascades_to
from mmvitcompress.tokens.method import Attended, TokenMethod
from mmvitcompress.tokens.placement import nearest
from mmvitcompress.tokens.spec import (
    Counts,
    Size,
    keep_ratio,
    kept_share,
)
from mmvitcompress.tokens.staged import StagedSpec
from mmvitcompress.tokens.state import TokenState, drop_lowest
from mmvitcompress.utils.checks import check_flag, check_positive_number


@dataclass(frozen=True)
class TokenEnergy(StagedSpec):
    """Where and how many patches stay.

    Args:
        layers: Blocks in which patches leave, counted from 1. Defaults to
            (4, 7, 10).
        keep_rate: Fraction of the patches that stays in each of them, in
            (0, 1]. Defaults to 0.7.
        rates: One such fraction for each of the layers, in place of
            ``keep_rate``. The authors' are found by a cascade, see
            :func:`mmvitcompress.plan` with ``calibration``. Defaults to None.
        cutoff: Width of the band of the highest frequencies that the filter
            takes out, as a fraction of all. Defaults to 0.15.
        attention: Whether scores are weighted by the attention of [CLS].
            Defaults to True.
    """

    key: ClassVar[str] = 'token_energy'

    rates: Sequence[float] | None = None
    cutoff: float = 0.15
    attention: bool = True

    def __post_init__(self):
        super().__post_init__()
        check_positive_number('token_energy.cutoff', self.cutoff)
        check_flag('token_energy.attention', self.attention)
        layers, rates = self.layers, (self.keep_rate,) * len(self.layers)
        if self.rates is not None:
            rates = tuple(self.rates)
            object.__setattr__(self, 'rates', rates)
        if len(rates) != len(layers):
            raise ConfigError(
                'token_energy.rates must name a fraction for each of '
                f'{len(layers)} layers, but got {len(rates)}'
            )
        ratios = [keep_ratio('token_energy.rates', rate) for rate in rates]
        object.__setattr__(self, '_ratios', dict(zip(layers, ratios)))

    @classmethod
    def for_images(
        cls, arch, img_size, reduction_of, target: float, error_of
    ) -> 'TokenEnergy':
        grid, blocks = arch.mergeable(img_size)
        patches = prod(grid)

        def make(counts: tuple[int, ...]) -> TokenEnergy:
            before = (patches, *counts)
            left = {
                layer: before[layer] / before[layer - 1]
                for layer in range(1, blocks + 1)
                if before[layer] < before[layer - 1]
            }
            return cls(tuple(left), rates=tuple(left.values()))

        found = cascades_to(
            lambda counts: error_of(make(counts)),
            lambda counts: reduction_of(make(counts)),
            blocks,
            patches,
            target,
        )
        return nearest([*map(make, found)], reduction_of, target, 1.0)

    def ungridded_after(self, depth: int) -> int | None:
        return self.layers[0]

    def kept_in(self, layer: int, patches: int) -> int:
        """Patches that stay of ``patches`` in one of the layers: ⌈ρ·n⌉."""
        return kept_share(self._ratios[layer], patches)

    def between(self, layer: int, size: Size) -> Size:
        if layer not in self.layers:
            return size
        return size._replace(patches=self.kept_in(layer, size.patches))

    def macs(self, layer: int, counts: Counts, arch, norm: int) -> int:
        if counts.mlp == counts.attention:
            return 0
        macs = counts.attention**2 * arch.token_dim  # the filter
        if self.attention:
            tokens = counts.attention + arch.num_prefix_tokens
            macs += tokens * arch.heads_in(layer) * arch.widths(layer)[0]
        return macs

    def build(
        self, arch, depth: int, training: bool = False
    ) -> 'LowFrequencyTokens':
        return LowFrequencyTokens(self, arch)


class LowFrequencyTokens(TokenMethod):
    """Keeps the patches that hold the low frequencies."""

    def __init__(self, spec: TokenEnergy, arch):
        super().__init__(arch.num_prefix_tokens)
        self.spec = spec
        self.within = frozenset(spec.layers)

    def between(
        self, layer: int, x: Tensor, state: TokenState, attention: Attended
    ) -> tuple[Tensor, TokenState]:
        patches = x[:, self.num_prefix :].detach()
        kept = self.spec.kept_in(layer, patches.shape[1])
        if kept == patches.shape[1]:
            return x, state
        scores = low_frequency_share(patches, self.spec.cutoff)
        if self.spec.attention:
            row = attention.class_row(self.num_prefix).mean(1).detach()
            scores = scores * row[:, self.num_prefix :]
        return drop_lowest(x, scores, kept, state, self.num_prefix)


def low_frequency_share(x: Tensor, cutoff: float) -> Tensor:
    """The share of each patch's energy (B, n) that a low-pass filter along
    the patches (B, n, D) leaves it; more than 1 where its neighbours lend it
    some.

    The filter is 1 − exp(−(k − n/2)² / 2σ²) at frequency k, σ = cutoff·n/2.
    It is applied as a circulant matrix, which is exact, and which graphs of
    any runtime can hold.
    """
    count = x.shape[1]
    place = torch.arange(count, device=x.device)
    low = (1 - 2 * place / count).square() * -0.5 / cutoff**2
    low = 1 - low.exp()
    # its impulse response, an even function
    turns = (place[:, None] * place % count) * (2 * torch.pi / count)
    response = (turns.cos() * low).mean(1)
    matrix = response[(place[:, None] - place) % count]
    kept = matrix.to(x.dtype) @ x
    energy = x.float().square().sum(2).clamp_min(1e-12)
    return kept.float().square().sum(2) / energy
