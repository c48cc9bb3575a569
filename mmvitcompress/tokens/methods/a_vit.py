"""A-ViT: each token stops when it has thought enough.

Adaptive tokens (Yin et al., "A-ViT: Adaptive Tokens for Efficient Vision
Transformer", CVPR 2022). After every block each token gets a halting score,
read off its first channel; once its scores sum up to 1 it stops: no token
attends to it any more, and its output is the mean of its states, weighted by
the scores, the last one by what the others leave of 1.

How many tokens run depends on the image. Masked, they cost what they did; time
is saved only where they leave, and a batch needs one number for all images.
Hence a number for each block that is given: at most so many patches run in it,
those that are the furthest from stopping.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, prod
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.method import TokenMethod
from mmvitcompress.tokens.placement import nearest_rate
from mmvitcompress.tokens.spec import Size, TokenSpec, keep_ratio, kept_share
from mmvitcompress.tokens.state import (
    Dropped,
    TokenState,
    split_lowest,
    take,
)
from mmvitcompress.utils.checks import (
    check_at_least_zero,
    check_flag,
    check_layers,
    check_positive_number,
    is_number,
)

STOPPED = -1e4
"""Logit of a key that has stopped: its weight is 0 in any precision."""


@dataclass(frozen=True)
class TokenHalting(TokenSpec):
    """When tokens stop, and how many patches each block has room for.

    Args:
        scale: γ of the halting score σ(γ·t₀ + β) of a token t. Defaults to 5.
        shift: β. Defaults to -10.
        eps: A token stops when its scores sum up to 1 - ``eps``. Defaults to
            0.01.
        first: The first block, counted from 1, after which tokens may stop.
            Defaults to 1.
        rates: For each block the most patches that run in it when it isn't
            trained, as a fraction of the image's; where more would, those
            that are the nearest to stopping stop. They are what MACs count.
            Defaults to None: there is room for all, so that the numbers are
            the paper's and no time is saved.
        dynamic: Whether an image that comes alone loses what has stopped at
            once: numbers don't change, the host waits for how many are left
            in each block, MACs are an upper bound, and no graph can be
            exported. Defaults to False.
        depth: Centre of the Gaussian over blocks, of deviation 1, that the
            scores are drawn to while it trains. Defaults to 8, the authors'.
        ponder_weight: Of the mean number of blocks that a token runs in, in
            the loss. Defaults to 5e-4.
        prior_weight: Of the divergence of the scores from that Gaussian.
            Defaults to 0.1.
    """

    key: ClassVar[str] = 'token_halting'

    scale: float = 5.0
    shift: float = -10.0
    eps: float = 0.01
    first: int = 1
    rates: Sequence[float] | None = None
    dynamic: bool = False
    depth: float = field(default=8.0, repr=False)
    ponder_weight: float = field(default=5e-4, repr=False)
    prior_weight: float = field(default=0.1, repr=False)

    def __post_init__(self):
        for name in ('scale', 'depth'):
            check_positive_number(f'{self.key}.{name}', getattr(self, name))
        for name in ('ponder_weight', 'prior_weight'):
            check_at_least_zero(f'{self.key}.{name}', getattr(self, name))
        check_flag(f'{self.key}.dynamic', self.dynamic)
        if not is_number(self.shift):
            raise ConfigError(
                f'{self.key}.shift must be a number, but got {self.shift!r}'
            )
        if not is_number(self.eps) or not 0 <= self.eps < 1:
            raise ConfigError(
                f'{self.key}.eps must lie in [0, 1), but got {self.eps!r}'
            )
        if self.rates is None:
            return
        rates = tuple(self.rates)
        object.__setattr__(self, 'rates', rates)
        ratios = [keep_ratio(f'{self.key}.rates', rate) for rate in rates]
        object.__setattr__(self, '_ratios', ratios)

    @classmethod
    def at_depth(cls, blocks: int, depth: float, **kwargs) -> 'TokenHalting':
        """Room in each of ``blocks`` for those that would still run if tokens
        stopped as the Gaussian around ``depth`` has it."""
        stopping = [exp(-((b - depth) ** 2) / 2) for b in range(1, blocks + 1)]
        total = sum(stopping)
        shares = [sum(stopping[b:]) / total for b in range(blocks)]
        rates = tuple(max(1e-4, round(share, 4)) for share in shares)
        return cls(rates=rates, depth=depth, **kwargs)

    @classmethod
    def for_target(
        cls, arch, img_size, reduction_of, target: float, most: float = 1.0
    ) -> 'TokenHalting':
        blocks = arch.token_depth

        def make(keep_rate: float) -> TokenHalting:
            # at the end so deep that all run to the last block
            depth = round(1 + keep_rate * (blocks + 3), 3)
            return cls.at_depth(blocks, depth)

        return nearest_rate(make, reduction_of, target, most)

    def check(self, arch) -> None:
        depth = arch.token_depth
        check_layers(f'{self.key}.first', [self.first], depth)
        if self.rates is None:
            return
        if len(self.rates) != depth:
            raise ConfigError(
                f'{self.key}.rates must name a rate for each of {depth} '
                f'blocks, but got {len(self.rates)}'
            )
        if min(self.rates[: self.first]) < 1:
            raise ConfigError(
                f'{self.key}.rates must be 1 up to block {self.first}, after '
                f'which the first tokens stop, but got {self.rates}'
            )

    def check_export(self) -> None:
        if self.dynamic:
            raise ConfigError(
                f'{self.key}.dynamic=True cannot become a graph, since how '
                'many tokens are left depends on the image: set it to False, '
                f'and give {self.key}.rates to save time all the same'
            )

    def ungridded_after(self, depth: int) -> int | None:
        # what is known of tokens from there on does not merge
        return self.first

    def room(self, layer: int, patches: int, whole: int) -> int:
        """How many of ``patches`` may run in block ``layer``, in an image of
        ``whole``."""
        if self.rates is None:
            return patches
        return min(patches, kept_share(self._ratios[layer - 1], whole))

    def before(self, layer: int, size: Size) -> Size:
        room = self.room(layer, size.patches, prod(size.grid))
        return size._replace(patches=room)

    def begins(self) -> int:
        return self.first + 1

    def build(
        self, arch, depth: int, training: bool = False
    ) -> 'HaltingTokens':
        return HaltingTokens(self, arch)


class Halting(NamedTuple):
    """What is known of tokens between blocks; P + n of each image."""

    rest: Tensor  # (B, P + n), what scores leave of 1; 0 once one has stopped
    mean: Tensor  # (B, P + n, D), of the states, the last one taking the rest
    x: Tensor  # (B, P + n, D), the states
    scores: tuple[Tensor, ...] = ()  # (B, P + n) of each block, in training


class HaltingTokens(TokenMethod):
    """Lets tokens stop, and hands out the means of their states.

    The mean m of the states t₁ … t_l, in which the last has the weight r_l
    that is left of 1, grows by r_l·(t_l - t_{l-1}) in block l: by what blocks
    add, each weighted by what was left. After any block it is the output of
    a net that ends there. Prefix tokens stop as patches do, but never leave.
    """

    def __init__(self, spec: TokenHalting, arch):
        super().__init__(arch.num_prefix_tokens)
        self.spec = spec

    def before(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        if layer <= self.spec.first or self.training:
            return x, state
        known, prefix = state.notes[self.spec.key], self.num_prefix
        rest = known.rest[:, prefix:]
        room = self.spec.room(layer, rest.shape[1], prod(state.grid))
        if self.spec.dynamic and x.shape[0] == 1:
            room = min(room, max(1, int((rest > 0).sum())))
        if room == rest.shape[1]:
            return x, state
        stay, leave = split_lowest(rest, room)
        gone = take(known.mean[:, prefix:], leave)
        places = torch.cat([stay, leave], 1).argsort(1)
        head = torch.arange(prefix, device=x.device).expand(x.shape[0], -1)
        stay = torch.cat([head, stay + prefix], 1)
        x, mean = take(x, stay), take(known.mean, stay)
        known = Halting(known.rest.gather(1, stay), mean, x)
        state = state.recording(Dropped(places, gone))
        return x, state.noting(self.spec.key, known)

    def bias(self, layer: int, state: TokenState) -> Tensor | None:
        if layer <= self.spec.first:
            return None
        rest = state.notes[self.spec.key].rest
        return torch.where(rest > 0, 0.0, STOPPED)[:, None, None]

    def rejoin(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        if layer < self.spec.first:
            return x, state
        spec, known = self.spec, state.notes.get(self.spec.key)
        exact = torch.promote_types(x.dtype, torch.float32)
        score = (spec.scale * x[..., 0].to(exact) + spec.shift).sigmoid()
        rest, mean, scores = torch.ones_like(score), x, ()
        if known is not None:
            rest, scores = known.rest, known.scores
            mean = known.mean + rest[..., None].to(x.dtype) * (x - known.x)
        left = rest - score
        left = torch.where(left > spec.eps, left, 0.0)
        scores = (*scores, score) if self.training else ()
        known = Halting(left, mean, x, scores)
        return mean, state.noting(spec.key, known)

    def after(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        if layer < self.spec.first:
            return x, state
        return state.notes[self.spec.key].x, state

    def losses(self, state: TokenState) -> dict[str, Tensor]:
        spec, known = self.spec, state.notes.get(self.spec.key)
        if known is None:
            return {}
        score = torch.stack(known.scores)  # (blocks, B, P + n)
        runs = score.cumsum(0) - score < 1 - spec.eps
        # in the last block that a token runs in, what is left counts for it
        spent = (score[:-1] * runs[1:]).sum(0)
        ponder = runs.sum(0) + (1 - spent) + spec.first - 1
        # where all scores vanish nothing is learned, and nothing is nan
        share = (score * runs).mean((1, 2)).clamp_min(1e-9)
        share = share / share.sum()
        block = torch.arange(len(share), device=share.device) + spec.first
        prior = (-(block - spec.depth).square() / 2).log_softmax(0)
        diverging = F.kl_div(prior, share, reduction='sum')
        return {
            'ponder': spec.ponder_weight * ponder.mean(),
            'halting_prior': spec.prior_weight * diverging,
        }
