"""DynamicViT: small predictors say which patches a block needs.

Dynamic token sparsification (Rao et al., "DynamicViT: Efficient Vision
Transformers with Dynamic Token Sparsification", NeurIPS 2021). Before some
blocks a predictor scores each patch by itself and by the mean of all; the
lowest leave. While training none leaves: which ones stay is drawn, and the
others are masked as keys, so that attention carries a gradient to the scores.
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.tokens.method import TokenMethod
from mmvitcompress.tokens.spec import MASKED, Counts, Size
from mmvitcompress.tokens.staged import StagedSpec
from mmvitcompress.tokens.state import TokenState, drop_lowest
from mmvitcompress.utils.checks import check_positive_number


@dataclass(frozen=True)
class TokenSparsification(StagedSpec):
    """Where and how many patches stay.

    Args:
        layers: Blocks before which patches leave, counted from 1. Defaults to
            (4, 7, 10).
        keep_rate: Fraction of the patches that stays at each of them, in
            (0, 1]. Defaults to 0.7.
        ratio_weight: Of the loss that holds the mean share of kept patches to
            the keep rate while the predictors learn. Defaults to 2.
    """

    key: ClassVar[str] = 'token_sparsification'
    start: ClassVar[str] = 'the predictors of what stays start untrained'
    untrained: ClassVar[str] = (
        'has no predictors of what stays, which token_sparsification needs: '
        'train them with soft_slimming=True, or leave it out'
    )

    ratio_weight: float = field(default=2.0, repr=False)

    def __post_init__(self):
        super().__post_init__()
        name = 'token_sparsification.ratio_weight'
        check_positive_number(name, self.ratio_weight)

    def parts(self, depth: int) -> dict[str, object]:
        return {str(layer - 1): 'scores' for layer in self.layers}

    def ungridded_after(self, depth: int) -> int | None:
        return self.layers[0] - 1

    def before(self, layer: int, size: Size) -> Size:
        if layer not in self.layers:
            return size
        return size._replace(patches=self.kept(size.patches))

    def macs(self, layer: int, counts: Counts, arch, norm: int) -> int:
        if layer not in self.layers or counts.attention == counts.met:
            return 0
        dim = arch.token_dim
        return counts.met * (norm * dim + sum(_products(dim)))

    def params(self, layer: int, arch) -> int:
        if layer not in self.layers:
            return 0
        dim = arch.token_dim
        biases = dim + dim // 2 + dim // 4 + 2
        return 2 * dim + sum(_products(dim)) + biases

    def build(
        self, arch, depth: int, training: bool = False
    ) -> 'TokenSparsifier':
        kind = SoftTokenSparsifier if training else TokenSparsifier
        return kind(self, arch, depth)


def _products(dim: int) -> tuple[int, ...]:
    """Weights of each linear layer of a predictor."""
    half, quarter = dim // 2, dim // 4
    return dim * dim, dim * half, half * quarter, 2 * quarter


class KeepPredictor(nn.Module):
    """Scores patches by what each is and by what all of them are."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        half, quarter = dim // 2, dim // 4
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.embed = nn.Linear(dim, dim)
        self.score = nn.Sequential(
            nn.Linear(dim, half),
            nn.GELU(),
            nn.Linear(half, quarter),
            nn.GELU(),
            nn.Linear(quarter, 2),
        )
        self.widths = dim - half, half

    def forward(self, x: Tensor, alive: Tensor | None = None) -> Tensor:
        """Logits (B, n, 2) to keep and to drop each of the patches (B, n, D).

        ``alive`` (B, n) says which of them there still are; None: all.
        """
        x = F.gelu(self.embed(self.norm(x)))
        own, shared = x.split(self.widths, 2)
        if alive is None:
            shared = shared.mean(1, keepdim=True)
        else:
            weights = alive / alive.sum(1, keepdim=True).clamp_min(MASKED)
            shared = weights.to(x.dtype).unsqueeze(1) @ shared
        return self.score(
            torch.cat([own, shared.expand_as(x[..., : shared.shape[2]])], 2)
        )


class TokenSparsifier(TokenMethod, nn.ModuleDict):
    """Drops patches before blocks; the predictors are keyed by the index
    (from 0) of the block after.

    What stays has no gradient, hence the predictors are frozen here; see
    :class:`SoftTokenSparsifier`.
    """

    def __init__(self, spec: TokenSparsification, arch, depth: int):
        super().__init__(arch.num_prefix_tokens)
        self.spec = spec
        for layer in spec.layers:
            if layer <= depth:
                predictor = KeepPredictor(arch.token_dim, arch.norm_eps)
                self[str(layer - 1)] = predictor.requires_grad_(False)

    def before(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        if str(layer - 1) not in self:
            return x, state
        patches = x[:, self.num_prefix :].detach()
        kept = self.spec.kept(patches.shape[1])
        if kept == patches.shape[1]:
            return x, state
        keep, drop = self[str(layer - 1)](patches).unbind(2)
        return drop_lowest(x, keep - drop, kept, state, self.num_prefix)


class Alive(NamedTuple):
    """Which patches are left while training, and how many were."""

    mask: Tensor  # (B, n), 1 or 0
    shares: tuple[Tensor, ...]  # (B), after each layer


class SoftTokenSparsifier(TokenSparsifier):
    """Sparsification whose predictors can be trained.

    In training mode all patches stay, and those that were drawn to leave are
    masked as keys; in evaluation mode the lowest leave as ever. Attention of a
    masked patch to itself, which no other token sees, is masked, too.
    """

    def __init__(self, spec: TokenSparsification, arch, depth: int):
        super().__init__(spec, arch, depth)
        self.requires_grad_(True)

    def before(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        if not self.training:
            return super().before(layer, x, state)
        if str(layer - 1) not in self:
            return x, state
        patches, known = (
            x[:, self.num_prefix :],
            state.notes.get(self.spec.key),
        )
        mask, shares = known or (None, ())
        logits = self[str(layer - 1)](patches, mask).float()
        # straight through: 1 or 0, with the gradient of the softmax
        drawn = F.gumbel_softmax(logits, hard=True)[..., 0]
        mask = drawn if mask is None else mask * drawn
        alive = Alive(mask, (*shares, mask.mean(1)))
        return x, state.noting(self.spec.key, alive)

    def bias(self, layer: int, state: TokenState) -> Tensor | None:
        alive = state.notes.get(self.spec.key)
        if alive is None:
            return None
        # e^h · m is the exponential of h + log m
        bias = (alive.mask + MASKED).log()
        return F.pad(bias, (self.num_prefix, 0))[:, None, None]

    def alive(self, state: TokenState) -> Tensor | None:
        alive = state.notes.get(self.spec.key)
        return None if alive is None else alive.mask

    def losses(self, state: TokenState) -> dict[str, Tensor]:
        alive = state.notes.get(self.spec.key)
        if alive is None:
            return {}
        misses = [
            (share - self.spec.keep_rate**stage).square().mean()
            for stage, share in enumerate(alive.shares, 1)
        ]
        loss = torch.stack(misses).mean()
        return {'keep_ratio': self.spec.ratio_weight * loss}
