"""Token matching (ToMe): similar tokens merge, wherever they lie.

What merging by place (:mod:`mmvitcompress.tokens.atme`) is compared with.
Bipartite soft matching (Bolya et al., "Token Merging: Your ViT but Faster",
ICLR 2023): patch tokens are assigned to two sets by turns; each token of the
first finds the most similar one of the second; the ``r`` best pairs become
their mean, in which every patch counts the same. What is left is no grid, so
that full maps are put together by indexing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.restore import to_map
from mmvitcompress.tokens.specs import Grid, TokenMerging
from mmvitcompress.utils.checks import layer_tuple


@dataclass(frozen=True)
class TokenMatching:
    """Where and how many tokens are matched and merged.

    Args:
        layers: Blocks before which tokens are merged, counted from 1; 'all'
            are those from the second on, since tokens are compared by the
            keys of the block before. Defaults to 'all'.
        r: Tokens that disappear at each of them; at most half of those that
            are there do. Defaults to None: half of them.
        macs_of: Arguments of
            :class:`~mmvitcompress.tokens.specs.TokenMerging`; ``r`` is then
            chosen so that the model costs what it would cost with these.
            Defaults to None.
        proportional: Whether attention weighs each key by the number of
            patches that it stands for, as ToMe does. Without it attention is
            faster. Defaults to True.
    """

    layers: tuple[int, ...] | str = 'all'
    r: int | None = None
    macs_of: TokenMerging | None = None
    proportional: bool = True

    def __post_init__(self):
        if isinstance(self.layers, str):
            if self.layers != 'all':
                raise ConfigError(
                    "token_matching.layers must be 'all' or whole numbers, "
                    f'but got {self.layers!r}'
                )
        else:
            layers = layer_tuple('token_matching.layers', self.layers)
            object.__setattr__(self, 'layers', layers)
        if self.r is not None and (type(self.r) is not int or self.r < 0):
            raise ConfigError(
                'token_matching.r must be a whole number of at least 0, but '
                f'got {self.r!r}'
            )
        if self.r is not None and self.macs_of is not None:
            raise ConfigError(
                'token_matching.macs_of chooses r: give one of the two, but '
                f'got r={self.r} as well'
            )
        if isinstance(self.macs_of, Mapping):
            spec = TokenMerging(**self.macs_of)
            object.__setattr__(self, 'macs_of', spec)

    def at(self, depth: int) -> tuple[int, ...]:
        """The layers in a model of ``depth`` blocks.

        Raises:
            ConfigError: If one lies outside of 2..depth.
        """
        if self.layers == 'all':
            return tuple(range(2, depth + 1))
        for layer in self.layers:
            if not 2 <= layer <= depth:
                raise ConfigError(
                    f'token_matching.layers must lie in 2..{depth} (blocks '
                    'are counted from 1, and the first has none before it '
                    f'whose keys could be compared), but got {layer}'
                )
        return self.layers

    def removed(self, patches: int) -> int:
        """How many of ``patches`` disappear at one layer."""
        half = patches // 2
        return half if self.r is None else min(self.r, half)


class MatchState(NamedTuple):
    """Where the patches of an image went.

    Attributes:
        full_grid: Patch grid (H, W) before any merge.
        index: (B, H·W), for each patch the token that it is in now; None as
            long as that is its own.
        sizes: (B, n), how many patches each token stands for; None if all
            stand for one.
    """

    full_grid: Grid
    index: Tensor | None = None
    sizes: Tensor | None = None


class Pairs(NamedTuple):
    """What bipartite matching found among n tokens.

    Attributes:
        kept: (B, ⌈n/2⌉ - r), tokens of the first set that stay.
        merged: (B, r), those that merge.
        partner: (B, r), what they merge into, counted in the second set.
    """

    kept: Tensor
    merged: Tensor
    partner: Tensor


@torch.no_grad()
def match(keys: Tensor, r: int) -> Pairs:
    """Find the ``r`` most similar pairs of tokens.

    Which tokens merge has no gradient; what they become has.

    Args:
        keys: (B, n, C), compared by the cosine of their angles.
        r: How many pairs, at most n // 2.

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
    x: Tensor, pairs: Pairs, state: MatchState, num_prefix: int
) -> tuple[Tensor, MatchState]:
    """Merge what :func:`match` found.

    Args:
        x: Tokens (B, num_prefix + n, D).
        pairs: Pairs of patch tokens.
        state: State of ``x``.
        num_prefix: Number of prefix tokens, which stay as they are.

    Returns:
        Tokens (B, num_prefix + n - r, D), those of the first set that stay
        before the second set, and their state.
    """
    stay = pairs.kept.shape[1]
    sizes = state.sizes
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
    moved = _moves(pairs, sizes.shape[1])
    if state.index is not None:
        moved = moved.gather(1, state.index)
    x = torch.cat([x[:, :num_prefix], patches], 1)
    return x, MatchState(state.full_grid, moved, counts)


def _moves(pairs: Pairs, total: int) -> Tensor:
    """(B, n): the place of each token after merging."""
    batch, stay = pairs.kept.shape
    places = torch.arange(stay + total // 2, device=pairs.kept.device)
    places = places.expand(batch, -1)
    moves = pairs.kept.new_empty(batch, total)
    moves[:, 1::2] = places[:, stay:]
    moves.scatter_(1, pairs.kept, places[:, :stay])
    return moves.scatter_(1, pairs.merged, stay + pairs.partner)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Tokens (B, k, D) of ``x`` (B, n, D) at ``index`` (B, k).

    As ``gather`` would, but whole rows at a time, which is many times faster
    on a CPU.
    """
    start = torch.arange(x.shape[0], device=x.device)[:, None] * x.shape[1]
    rows = x.flatten(0, 1).index_select(0, (index + start).flatten())
    return rows.unflatten(0, index.shape)


def size_bias(state: MatchState, num_prefix: int) -> Tensor | None:
    """What proportional attention adds to the logits: log of the key's size.

    Returns:
        (B, 1, 1, num_prefix + n), or None as long as all sizes are 1.
    """
    if state.sizes is None:
        return None
    return F.pad(state.sizes.log(), (num_prefix, 0))[:, None, None]


def unmatch(tokens: Tensor, state: MatchState) -> Tensor:
    """Patch tokens (B, n, D) → full map (B, D, H, W): each patch gets the
    token that it has become part of."""
    if state.index is not None:
        tokens = take(tokens, state.index)
    return to_map(tokens, state.full_grid)
