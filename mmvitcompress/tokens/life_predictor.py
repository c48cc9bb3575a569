"""How long each patch is worth keeping, and what that weighs in attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_DEVIATION = 1e-4
"""Scores of one image closer than this count as equal: their differences are
rounding, which standardising would blow up, together with the gradients."""

SHARPNESS = 1.5
"""U of the paper, in 1/layers: how steeply weights fall when a life ends."""


class LifePredictor(nn.Module):
    """Scores s_i = ⟨P x̄_cls, Q x̄_i⟩ with x̄ = LayerNorm(x)."""

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


class FoldedLifePredictor(nn.Module):
    """A :class:`LifePredictor` with one projection, for inference.

    ⟨P x̄_cls, Q x̄_i⟩ = ⟨Qᵀ P x̄_cls, x̄_i⟩: of each image only one token is
    projected. That is N·D multiply-accumulates instead of about 2·N·D².

    Args:
        predictor: What to fold.
    """

    def __init__(self, predictor: LifePredictor):
        super().__init__()
        self.norm = predictor.norm
        product = predictor.key.weight.t() @ predictor.query.weight
        self.weight = nn.Parameter(product.contiguous(), requires_grad=False)
        self.eval()

    def forward(self, x: Tensor, num_prefix: int) -> Tensor:
        """Scores (B, N) of the patches of (B, num_prefix + N, D)."""
        x = self.norm(x)
        wanted = F.linear(x[:, :1], self.weight)  # (B, 1, D)
        return (wanted @ x[:, num_prefix:].transpose(1, 2)).squeeze(1)


def scores_to_lives(scores: Tensor, mean: float, std: float) -> Tensor:
    """Lives τ (B, N), in layers: scores standardised within each image.

    At least in float32, also under autocast. Scores that are all equal, as of
    an image of one colour, give lives of ``mean`` and finite gradients.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    deviation, centre = torch.std_mean(scores, -1, correction=0, keepdim=True)
    return (scores - centre) / deviation.clamp_min(MIN_DEVIATION) * std + mean


def log_weights(
    lives: Tensor, layer: int, sharpness: float = SHARPNESS
) -> Tensor:
    """log β, with β_i(t) = 1 / (1 + exp(U·(t − τ_i))) falling in t.

    The paper prints Eq. 7 with the sign turned round; its Eq. 4 and Fig. 3
    have it as it is here.

    Args:
        lives: Lives τ, of any shape, in layers.
        layer: The block t, counted from 1.
        sharpness: U of the paper.
    """
    return F.logsigmoid(sharpness * (lives - layer))


def key_bias(
    lives: Tensor,
    layer: int,
    num_prefix: int,
    sharpness: float = SHARPNESS,
) -> Tensor:
    """What to add to the attention logits of block ``layer``.

    exp(h_ij)·β_j / Σ_k exp(h_ik)·β_k is the softmax of h_ij + log β_j. Prefix
    tokens have β = 1.

    Args:
        lives: Lives τ (B, N), in layers.
        layer: The block t, counted from 1.
        num_prefix: Number of prefix tokens.
        sharpness: U of the paper.

    Returns:
        (B, 1, 1, num_prefix + N), the same for all heads and queries: the
        attention kernels expand it themselves.
    """
    bias = F.pad(log_weights(lives, layer, sharpness), (num_prefix, 0))
    return bias[:, None, None]
