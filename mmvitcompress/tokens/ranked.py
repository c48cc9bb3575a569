"""Ranked patches (DiffRate): the last leave, those before them merge.

Once with whole numbers, so that fewer patches are left; once with masks, so
that the numbers can be learned: they are means over candidates, weighted by a
softmax. A rank stays if it lies within the mean; its gradient is that of the
probability of the candidates which it lies within.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.tokens.method import Attended, TokenMethod
from mmvitcompress.tokens.restore import covered_means
from mmvitcompress.tokens.spec import MASKED
from mmvitcompress.tokens.state import Dropped, TokenState, take


def reduce_ranked(
    x: Tensor, order: Tensor, sizes: Tensor, pruned: int, merged: int
) -> tuple[Tensor, Tensor, Dropped]:
    """Prune all but the first ``pruned`` of ranked patches, and merge all but
    the first ``merged`` of those into the ones that they are most like.

    A merged token is the mean of what it was and what came; its size, by
    which attention weighs it, grows by theirs times their cosine.

    Args:
        x: Patches (B, n, D).
        order: Their places (B, n), the most important first.
        sizes: How many patches each stands for, (B, n).
        pruned: How many are left by pruning.
        merged: How many of them are left by merging.

    Returns:
        (B, merged, D) patches in the order they had, their sizes, and the
        record of it.
    """
    stay = order[:, :merged].sort(1).values
    moves, leave = order[:, merged:pruned], order[:, pruned:]
    gone, kept, sources = (take(x, places) for places in (leave, stay, moves))
    partner, like = _most_alike(sources, kept)
    index = partner[..., None].expand_as(sources)
    count = sizes.new_ones(stay.shape)
    count = count.scatter_add(1, partner, sizes.new_ones(partner.shape))
    kept = kept.scatter_add(1, index, sources) / count[..., None].to(x.dtype)
    grown = sizes.gather(1, moves) * like
    sizes = sizes.gather(1, stay).scatter_add(1, partner, grown)
    # where each of the patches is now, among those left and then those gone
    rank = torch.arange(order.shape[1], device=order.device).expand_as(order)
    now = [rank[:, :merged], partner, rank[:, merged:][:, : leave.shape[1]]]
    before = torch.cat([stay, moves, leave], 1)
    places = torch.empty_like(order).scatter(1, before, torch.cat(now, 1))
    return kept, sizes, Dropped(places, gone)


@torch.no_grad()
def _most_alike(sources: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the targets (B, m, D) each of the sources (B, s, D) is most
    like: their places and cosines (B, s), those at least 0."""
    sources, targets = (F.normalize(x, dim=-1) for x in (sources, targets))
    found = (sources @ targets.transpose(1, 2)).max(2)
    return found.indices, found.values.float().clamp_min(0)


def merge_masked(
    x: Tensor, sizes: Tensor, stay: Tensor, moves: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Merge as :func:`reduce_ranked` does, by masks (B, n) of what stays and
    what merges; all of the patches (B, n, D) are still there afterwards.

    Returns:
        Patches and sizes, and of which patch each is now a part, (B, n).
    """
    with torch.no_grad():
        unit = F.normalize(x, dim=-1)
        like = (unit @ unit.transpose(1, 2)).float()
        cosine, partner = like.masked_fill(~stay[:, None], -torch.inf).max(2)
        grown = sizes * cosine.clamp_min(0) * moves
        count = torch.ones_like(sizes)
        count = count.scatter_add(1, partner, moves.to(count.dtype))
        own = torch.arange(x.shape[1], device=x.device)
        part_of = torch.where(moves, partner, own)
    index = partner[..., None].expand_as(x)
    sums = x.scatter_add(1, index, x * moves[..., None])
    sizes = sizes.scatter_add(1, partner, grown)
    return sums / count[..., None].to(x.dtype), sizes, part_of


class LearnedRate(nn.Module):
    """The fraction of patches that stays: a mean over 1/n, …, 1.

    Args:
        count: How many candidates there are, n.
        rate: Where it starts, in (0, 1].
    """

    def __init__(self, count: int, rate: float):
        super().__init__()
        fractions = np.arange(1, count + 1) / count
        logits = torch.tensor(_tilted(fractions, rate)).float()
        fractions = torch.tensor(fractions).float()
        self.register_buffer('fractions', fractions, persistent=False)
        self.logits = nn.Parameter(logits)

    def forward(self) -> Tensor:
        """The rate, a scalar."""
        chances = self.logits.float().softmax(0)
        return chances @ self.fractions.to(chances)

    def mask(self, rank: Tensor) -> Tensor:
        """1 for ranks (B, n), from 0, that stay, and 0 for the others."""
        count, total = rank.shape[1], len(self.logits)
        kept = (self() * total).ceil() * count / total
        kept = (rank < kept.ceil()).float()
        # of candidates for another number of patches the one as far along
        index = ((rank + 1) * total + count - 1) // count - 1
        chance = self.logits.float().softmax(0)
        chance = chance.flip(0).cumsum(0).flip(0)[index]
        return kept + chance - chance.detach()


def _tilted(fractions: np.ndarray, rate: float) -> np.ndarray:
    """Logits, linear in the fractions, of a given mean: by bisection."""
    low, high = -1e4, 1e4
    for _ in range(60):
        slope = (low + high) / 2
        logits = slope * fractions
        weights = np.exp(logits - logits.max())
        below = weights @ fractions / weights.sum() < rate
        low, high = (slope, high) if below else (low, slope)
    return slope * (fractions - fractions.mean())


class RatedTokens(TokenMethod):
    """Prunes and merges at fixed rates."""

    def __init__(self, spec, arch):
        super().__init__(arch.num_prefix_tokens)
        self.spec = spec
        self.within = frozenset(spec.layers_reduced())

    def kept(self, layer: int, patches: int, whole: int) -> tuple[int, int]:
        """See ``TokenRates.kept``."""
        return self.spec.kept(layer, patches, whole)

    def bias(self, layer: int, state: TokenState) -> Tensor | None:
        sizes = state.notes.get(self.spec.key)
        if sizes is None:
            return None
        return F.pad(sizes.log(), (self.num_prefix, 0))[:, None, None]

    def between(
        self, layer: int, x: Tensor, state: TokenState, attention: Attended
    ) -> tuple[Tensor, TokenState]:
        patches, whole = x[:, self.num_prefix :], prod(state.grid)
        kept = tuple(self.kept(layer, patches.shape[1], whole))
        if kept[1] == patches.shape[1]:
            return x, state
        row = self._importance(attention)
        order = row.argsort(dim=1, descending=True, stable=True)
        sizes = state.notes.get(self.spec.key)
        sizes = torch.ones_like(row) if sizes is None else sizes
        patches, sizes, record = reduce_ranked(patches, order, sizes, *kept)
        x = torch.cat([x[:, : self.num_prefix], patches], 1)
        state = state.recording(record)
        return x, state.noting(self.spec.key, sizes)

    def _importance(self, attention: Attended) -> Tensor:
        """How much [CLS] attends to each patch, (B, n)."""
        row = attention.class_row(self.num_prefix).mean(1)
        return row[:, self.num_prefix :].detach()


class Rated(NamedTuple):
    """Which patches are left while rates learn, and what each weighs."""

    alive: Tensor  # (B, n), 1 or 0
    sizes: Tensor  # (B, n)
    part_of: Tensor  # (B, n), the patch that each went into


class RateLearner(RatedTokens):
    """Token rates that can be trained; the weights are meant to be frozen.

    In training mode all patches stay, and those that would be gone are masked
    as keys. Blocks before the first that is given a rate below 1 stay whole.
    In evaluation mode the rates of the moment act as fixed ones do,
    for which the host waits for them.
    """

    def __init__(self, spec, arch, depth: int):
        super().__init__(spec, arch)
        self.arch, self.depth = arch, depth
        first = spec.layers_reduced()[0]
        self.within = frozenset(range(first, depth + 1))
        self.whole = prod(arch.mergeable(arch.img_size)[0])
        self.rates = nn.ModuleDict(
            {
                f'{layer}_{name}': LearnedRate(self.whole, rates[layer - 1])
                for name, rates in vars(spec).items()
                if name in ('prune', 'merge')
                for layer in sorted(self.within)
            }
        )

    def layer_of(self, name: str) -> int:
        return int(name.split('.')[1].partition('_')[0])

    def at(self, layer: int) -> tuple[LearnedRate, LearnedRate]:
        """What is learned of a block."""
        return self.rates[f'{layer}_prune'], self.rates[f'{layer}_merge']

    @torch.no_grad()
    def kept(self, layer: int, patches: int, whole: int) -> Iterator[int]:
        for rate in self.at(layer):
            count = int((rate() * self.whole).ceil())
            patches = min(patches, -(-count * whole // self.whole))
            yield patches

    def learned(self):
        """The rates of the moment as plain numbers; waits for the device."""
        kept, left = [], self.whole
        for layer in range(1, self.arch.depth + 1):
            if layer in self.within:
                kept.append([*self.kept(layer, left, self.whole)])
                left = kept[-1][1]
            else:
                kept.append([left, left])
        rates = [[count / self.whole for count in pair] for pair in kept]
        prune, merge = zip(*rates)
        return replace(self.spec, prune=prune, merge=merge)

    def bias(self, layer: int, state: TokenState) -> Tensor | None:
        noted = state.notes.get(self.spec.key)
        if not isinstance(noted, Rated):
            return super().bias(layer, state)
        bias = (noted.alive + MASKED).log() + noted.sizes.log()
        return F.pad(bias, (self.num_prefix, 0))[:, None, None]

    def between(
        self, layer: int, x: Tensor, state: TokenState, attention: Attended
    ) -> tuple[Tensor, TokenState]:
        if not self.training:
            return super().between(layer, x, state, attention)
        row = self._importance(attention)
        ones = torch.ones_like(row)
        own = torch.arange(row.shape[1], device=row.device).expand_as(row)
        known = state.notes.get(self.spec.key) or Rated(ones, ones, own)
        alive, sizes, went = known
        # those that are gone rank last
        rank = torch.where(alive > 0.5, row, -1)
        rank = rank.argsort(dim=1, descending=True, stable=True).argsort(1)
        pruned, merged = (rate.mask(rank) for rate in self.at(layer))
        alive = alive * pruned
        left = alive * merged
        moves = (alive > 0.5) & (left < 0.5)
        patches = x[:, self.num_prefix :]
        patches, *now = merge_masked(patches, sizes, left > 0.5, moves)
        x = torch.cat([x[:, : self.num_prefix], patches], 1)
        known = Rated(left, now[0], now[1].gather(1, went))
        return x, state.noting(self.spec.key, known).having()  # moved

    def stand(self, places: Tensor, state: TokenState) -> Tensor:
        noted = state.notes.get(self.spec.key)
        if not isinstance(noted, Rated):
            return places
        places = places.expand(*noted.part_of.shape, 2)
        return covered_means(places, noted.part_of, places.shape[1])

    def alive(self, state: TokenState) -> Tensor | None:
        noted = state.notes.get(self.spec.key)
        return noted.alive if isinstance(noted, Rated) else None

    def losses(self, state: TokenState) -> dict[str, Tensor]:
        arch, dim, prefix = self.arch, self.arch.token_dim, self.num_prefix
        whole, spent, dense = prod(state.grid), 0, 0
        left = whole + prefix
        for layer in range(1, self.depth + 1):
            qk, v, hidden = arch.widths(layer)
            mlp = hidden * (arch.hidden_rows + 1)
            attended = arch.heads_in(layer) * (qk + v)

            def attention(n, attended=attended):
                return n * 2 * dim * attended + n * n * attended

            dense += attention(whole + prefix)
            dense += (whole + prefix) * dim * mlp
            spent = spent + attention(left)
            for rate in self.at(layer) if layer in self.within else ():
                left = (rate() * whole + prefix).clamp(max=left)
            spent = spent + left * dim * mlp
        miss = spent / dense - (1 - self.spec.target)
        return {'macs': self.spec.macs_weight * miss.square()}
