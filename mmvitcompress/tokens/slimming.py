"""Life regression: predict once how many layers each patch is worth keeping.

After one block a predictor gives every patch its life. The patches are then
sorted by it, once; from there on dropping patches is a slice: no score, no
gather in later layers.
"""

import torch
from torch import Tensor, nn

from mmvitcompress.tokens.specs import PatchSlimming
from mmvitcompress.tokens.state import TokenState

MIN_DEVIATION = 1e-4
"""Scores of one image closer than this count as equal: their differences are
rounding, which standardising would blow up, together with the gradients."""


class LifePredictor(nn.Module):
    """Scores s_i = ⟨P x̄_cls, Q x̄_i⟩ with x̄ = LayerNorm(x).

    Args:
        dim: Embedding width D.
        eps: Epsilon of the normalisation. Defaults to 1e-6.
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, num_prefix: int) -> Tensor:
        """Scores (B, N) of the patches of (B, num_prefix + N, D)."""
        x = self.norm(x)
        # over all tokens, as the paper counts it in its MACs
        query = self.query(x)[:, :1]  # (B, 1, D)
        key = self.key(x[:, num_prefix:])  # (B, N, D)
        return (query @ key.transpose(1, 2)).squeeze(1)


def scores_to_lives(scores: Tensor, mean: float, std: float) -> Tensor:
    """Lives τ (B, N), in layers: scores standardised within each image.

    At least in float32, also under autocast. Scores that are all equal, as of
    an image of one colour, give lives of ``mean`` and finite gradients.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    deviation, centre = torch.std_mean(scores, -1, correction=0, keepdim=True)
    return (scores - centre) / deviation.clamp_min(MIN_DEVIATION) * std + mean


def sort_patches(
    x: Tensor, scores: Tensor, state: TokenState, num_prefix: int
) -> tuple[Tensor, TokenState]:
    """Put the patches of (B, num_prefix + N, D) in order of falling life.

    Equal scores keep their raster order, so that the result is the same on
    every device.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)  # (B, N)
    index = order.unsqueeze(-1).expand(-1, -1, x.shape[-1])
    patches = x[:, num_prefix:].gather(1, index)
    x = torch.cat([x[:, :num_prefix], patches], 1)
    rank = torch.arange(order.shape[1], device=order.device)
    # here once, for all the outputs that are restored later
    places = torch.empty_like(order).scatter_(1, order, rank.expand_as(order))
    return x, state.having(order=order, places=places)


def drop_last(
    x: Tensor, kept: int, state: TokenState, num_prefix: int
) -> tuple[Tensor, TokenState]:
    """Keep the first ``kept`` patches; the others leave with what they are."""
    end = num_prefix + kept
    departed = (*state.departed, x[:, end:])
    return x[:, :end], state.having(departed=departed)


class PatchSlimmer(nn.Module):
    """Patch slimming at inference: one sort, then slices.

    The order of the patches has no gradient, hence the predictor is frozen
    here; it is trained by life regression, where no patch is dropped
    (:class:`~mmvitcompress.tokens.life_regression.SoftPatchSlimmer`).

    Args:
        dim: Embedding width D.
        spec: Layers and keep rate.
        eps: Epsilon of the predictor's normalisation. Defaults to 1e-6.
    """

    def __init__(self, dim: int, spec: PatchSlimming, eps: float = 1e-6):
        super().__init__()
        self.spec = spec
        self.predictor = LifePredictor(dim, eps).requires_grad_(False)

    def bias(
        self, layer: int, state: TokenState, num_prefix: int
    ) -> Tensor | None:
        """What to add to the attention logits of block ``layer``: nothing."""
        return None

    def after(
        self, layer: int, x: Tensor, state: TokenState, num_prefix: int
    ) -> tuple[Tensor, TokenState]:
        """What happens after block ``layer`` (counted from 1)."""
        if layer == self.spec.base_layer:
            scores = self.predictor(x.detach(), num_prefix)
            x, state = sort_patches(x, scores, state, num_prefix)
        if layer in self.spec.layers:
            kept = self.spec.kept(x.shape[1] - num_prefix)
            x, state = drop_last(x, kept, state, num_prefix)
        return x, state

    def extra_repr(self) -> str:
        return str(self.spec)
