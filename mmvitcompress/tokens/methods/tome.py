"""ToMe: similar tokens merge, wherever they lie.

Bipartite soft matching (Bolya et al., "Token Merging: Your ViT but Faster",
ICLR 2023). In a block, between attention and MLP, patch tokens are assigned to
two sets by turns; each token of the first finds the one of the second whose
keys are the most similar; the ``r`` best pairs become their mean, in which
every patch counts the same. What is left is no grid, so that full maps are put
together by indexing.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.method import Attended, TokenMethod
from mmvitcompress.tokens.methods.atme import TokenMerging
from mmvitcompress.tokens.placement import nearest
from mmvitcompress.tokens.spec import Counts, Size, TokenSpec
from mmvitcompress.tokens.state import TokenState, take
from mmvitcompress.utils.checks import (
    check_flag,
    check_layers,
    layer_tuple,
)


@dataclass(frozen=True)
class TokenMatching(TokenSpec):
    """Where and how many tokens are matched and merged.

    Args:
        layers: Blocks in which tokens merge, counted from 1, or 'all' of
            them. Defaults to 'all'.
        r: Tokens that disappear in each of them; at most half of those that
            are there do. Defaults to None: half of them.
        macs_of: Arguments of
            :class:`~mmvitcompress.tokens.TokenMerging`; ``r`` is then
            chosen so that the model costs what it would cost with these.
            Defaults to None.
        proportional: Whether attention weighs each key by the number of
            patches that it stands for, as ToMe does. Without it attention is
            faster. Defaults to True.
        linear_every: From the first block on, after the merges of one in so
            many, patches go through a linear layer, which starts as the
            identity (CAIT's "ToMe + Param": 3). Defaults to 0: none.
    """

    key: ClassVar[str] = 'token_matching'
    start: ClassVar[str] = 'linear layers after merges start as the identity'

    layers: tuple[int, ...] | str = 'all'
    r: int | None = None
    macs_of: TokenMerging | None = None
    proportional: bool = True
    linear_every: int = 0

    def __post_init__(self):
        if self.layers != 'all':
            if isinstance(self.layers, str):
                raise ConfigError(
                    "token_matching.layers must be 'all' or whole numbers, "
                    f'but got {self.layers!r}'
                )
            layers = layer_tuple('token_matching.layers', self.layers)
            object.__setattr__(self, 'layers', layers)
        check_flag('token_matching.proportional', self.proportional)
        for name in ('r', 'linear_every'):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 0):
                raise ConfigError(
                    f'token_matching.{name} must be a whole number of at '
                    f'least 0, but got {value!r}'
                )
        if self.r is not None and self.macs_of is not None:
            raise ConfigError(
                'token_matching.macs_of chooses r: give one of the two, but '
                f'got r={self.r} as well'
            )
        if isinstance(self.macs_of, Mapping):
            spec = TokenMerging(**self.macs_of)
            object.__setattr__(self, 'macs_of', spec)

    def is_empty(self) -> bool:
        return self.layers == () or self.r == 0

    def to_dict(self) -> dict:
        content = super().to_dict()
        if not self.linear_every:
            del content['linear_every']
        return content

    def parts(self, depth: int) -> dict[str, object]:
        linear = filter(self.has_linear, range(1, depth + 1))
        return {str(layer - 1): 'tokens that merged' for layer in linear}

    def has_linear(self, layer: int) -> bool:
        """Whether a linear layer follows what block ``layer`` merges."""
        every = self.linear_every
        there = bool(every) and layer % every == 1 % every
        return there and self.merges_in(layer)

    def resolved(self, arch) -> 'TokenMatching':
        if self.macs_of is None:
            return self
        target = arch.with_reductions(self.macs_of).macs()
        fixed = replace(self, macs_of=None)

        def cost(spec: TokenMatching) -> int:
            return arch.with_reductions(spec).macs()

        if cost(fixed) > target:
            raise ConfigError(
                f'token_matching.layers {self.layers} save less than the '
                f'merges of macs_of ({self.macs_of}) even if half of the '
                'tokens merge in each of them: name more layers, or earlier '
                'ones'
            )
        near = fixed._around(arch.img_size, arch, lambda s: -cost(s), -target)
        return min(near, key=lambda spec: abs(cost(spec) - target))

    @classmethod
    def for_target(
        cls, arch, img_size, reduction_of, target: float, most: float = 1.0
    ) -> 'TokenMatching':
        near = cls()._around(img_size, arch, reduction_of, target)
        return nearest(near, reduction_of, target, most)

    def _around(
        self, img_size, arch, saved, target: float
    ) -> list['TokenMatching']:
        """The two specs of other ``r`` between which a target lies."""
        height, width = arch.grid(img_size)
        specs = [
            replace(self, r=r) for r in range(-(-height * width // 2) + 1)
        ]
        found = bisect_left(specs, target, key=saved)
        return specs[max(0, found - 1) : found + 1]

    def check(self, arch) -> None:
        if self.layers != 'all':
            name = 'token_matching.layers'
            check_layers(name, self.layers, arch.token_depth)

    def merges_in(self, layer: int) -> bool:
        """Whether tokens merge in block ``layer``."""
        return self.layers == 'all' or layer in self.layers

    def ungridded_after(self, depth: int) -> int | None:
        return 1 if self.layers == 'all' else min(self.layers, default=None)

    def removed(self, patches: int) -> int:
        """How many of ``patches`` disappear in one layer."""
        half = patches // 2
        return half if self.r is None else min(self.r, half)

    def between(self, layer: int, size: Size) -> Size:
        if not self.merges_in(layer):
            return size
        return size._replace(patches=size.patches - self.removed(size.patches))

    def macs(self, layer: int, counts: Counts, arch, norm: int) -> int:
        patches = counts.attention
        macs = counts.mlp * arch.token_dim**2 * self.has_linear(layer)
        if not self.merges_in(layer) or not self.removed(patches):
            return macs
        second = patches // 2
        return macs + (patches - second) * second * arch.widths(layer)[0]

    def params(self, layer: int, arch) -> int:
        dim = arch.token_dim
        return (dim**2 + dim) * self.has_linear(layer)

    def build(
        self, arch, depth: int, training: bool = False
    ) -> 'SimilarMerging':
        return SimilarMerging(self, arch, depth)


class SimilarMerging(TokenMethod, nn.ModuleDict):
    """Merges similar tokens between the attention and the MLP of blocks; what
    follows is keyed by the index (from 0) of the block."""

    def __init__(self, spec: TokenMatching, arch, depth: int):
        super().__init__(arch.num_prefix_tokens)
        self.spec = spec
        self.within = frozenset(filter(spec.merges_in, range(1, depth + 1)))
        for layer in filter(spec.has_linear, sorted(self.within)):
            self[str(layer - 1)] = _identity(arch.token_dim)

    def bias(self, layer: int, state: TokenState) -> Tensor | None:
        sizes = state.notes.get(self.spec.key)
        if sizes is None or not self.spec.proportional:
            return None
        return F.pad(sizes.log(), (self.num_prefix, 0))[:, None, None]

    def between(
        self, layer: int, x: Tensor, state: TokenState, attention: Attended
    ) -> tuple[Tensor, TokenState]:
        prefix, key = self.num_prefix, self.spec.key
        total = x.shape[1] - prefix
        r = self.spec.removed(total)
        if r:  # else too few are left
            pairs = match(attention.keys().mean(1)[:, prefix:], r)
            x, sizes = merge_pairs(x, pairs, state.notes.get(key), prefix)
            state = state.reindexed(moves(pairs, total)).noting(key, sizes)
        if self.spec.has_linear(layer):
            patches = self[str(layer - 1)](x[:, prefix:])
            x = torch.cat([x[:, :prefix], patches], 1)
        return x, state


def _identity(dim: int) -> nn.Linear:
    layer = nn.Linear(dim, dim)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Pairs(NamedTuple):
    """What bipartite matching found among n tokens."""

    kept: Tensor  # (B, ⌈n/2⌉ - r), tokens of the first set that stay
    merged: Tensor  # (B, r), those that merge
    partner: Tensor  # (B, r), what they merge into, counted in the second set


@torch.no_grad()
def match(keys: Tensor, r: int) -> Pairs:
    """Find the ``r`` most similar pairs of tokens.

    Keys (B, n, C) are compared by the cosine of their angles; r is at most
    n // 2. Which tokens merge has no gradient; what they become has.

    Returns:
        The pairs, the most similar first. A token of the second set may
        belong to several.
    """
    batch, count, _ = keys.shape
    if count < 2:  # the second set is empty
        kept = keys.new_zeros(batch, count, dtype=torch.long)
        return Pairs(kept, kept[:, :0], kept[:, :0])
    keys = F.normalize(keys, dim=-1)
    scores = keys[:, ::2] @ keys[:, 1::2].transpose(1, 2)
    best, partner = scores.max(-1)  # (B, ⌈n/2⌉)
    order = best.argsort(1, descending=True)
    merged = order[:, :r]
    return Pairs(2 * order[:, r:], 2 * merged, partner.gather(1, merged))


def merge_pairs(
    x: Tensor, pairs: Pairs, sizes: Tensor | None, num_prefix: int
) -> tuple[Tensor, Tensor]:
    """Merge what :func:`match` found among tokens (B, num_prefix + n, D).

    ``sizes`` (B, n) say how many patches each patch token stands for; None: 1.

    Returns:
        Tokens (B, num_prefix + n - r, D), those of the first set that stay
        before the second set, and their sizes.
    """
    stay = pairs.kept.shape[1]
    if sizes is None:
        sizes = x.new_ones(x.shape[0], x.shape[1] - num_prefix).float()
    # at least float32: in bfloat16 numbers above 256 are not exact
    sums = x[:, num_prefix:] * sizes[..., None]
    added = take(sums, pairs.merged)
    sums = torch.cat([take(sums, pairs.kept), sums[:, 1::2]], 1)
    counts = torch.cat([sizes.gather(1, pairs.kept), sizes[:, 1::2]], 1)
    target = stay + pairs.partner
    sums.scatter_add_(1, target[..., None].expand_as(added), added)
    counts.scatter_add_(1, target, sizes.gather(1, pairs.merged))
    patches = (sums / counts[..., None]).to(x.dtype)
    return torch.cat([x[:, :num_prefix], patches], 1), counts


def moves(pairs: Pairs, total: int) -> Tensor:
    """(B, total): the place of each of ``total`` tokens after merging."""
    batch, stay = pairs.kept.shape
    places = torch.arange(stay + total // 2, device=pairs.kept.device)
    places = places.expand(batch, -1)
    moved = pairs.kept.new_empty(batch, total)
    moved[:, 1::2] = places[:, stay:]
    moved.scatter_(1, pairs.kept, places[:, :stay])
    return moved.scatter_(1, pairs.merged, stay + pairs.partner)
