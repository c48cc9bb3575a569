"""Life regression: how the predictor of patch slimming learns.

While training no patch is dropped, since dropping has no gradient. Each patch
is weighted instead, in the attention of every block, by how surely it is
still alive there; the weights carry the gradient to the predicted lives.
"""

import torch.nn.functional as F
from torch import Tensor

from mmvitcompress.tokens.slimming import PatchSlimmer, scores_to_lives
from mmvitcompress.tokens.specs import PatchSlimming
from mmvitcompress.tokens.state import TokenState

SHARPNESS = 1.5
"""U of the paper, in 1/layers: how steeply weights fall when a life ends."""


def log_weights(
    lives: Tensor, layer: int, sharpness: float = SHARPNESS
) -> Tensor:
    """log β, with β_i(t) = 1 / (1 + exp(U·(t − τ_i))) falling in t.

    The paper prints Eq. 7 with the sign turned round; its Eq. 4 and Fig. 3
    have it as it is here.

    Args:
        lives: Lives τ, of any shape, in layers.
        layer: The block t, counted from 1.
        sharpness: U of the paper. Defaults to 1.5.
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
        sharpness: U of the paper. Defaults to 1.5.

    Returns:
        (B, 1, 1, num_prefix + N), the same for all heads and queries: the
        attention kernels expand it themselves.
    """
    bias = F.pad(log_weights(lives, layer, sharpness), (num_prefix, 0))
    return bias[:, None, None]


class SoftPatchSlimmer(PatchSlimmer):
    """Patch slimming whose predictor can be trained.

    In training mode all patches stay, in raster order, with their lives in
    the state; in evaluation mode they leave as in :class:`PatchSlimmer`, so
    that validation measures the slimmed model. Both have the same parameters.

    Args:
        dim: Embedding width D.
        spec: Layers and keep rate, from which the mean and the standard
            deviation of the lives follow.
        depth: Number L of blocks of the whole model.
        eps: Epsilon of the predictor's normalisation. Defaults to 1e-6.
        sharpness: U of the paper. Defaults to 1.5.
    """

    def __init__(
        self,
        dim: int,
        spec: PatchSlimming,
        depth: int,
        eps: float = 1e-6,
        sharpness: float = SHARPNESS,
    ):
        super().__init__(dim, spec, eps)
        self.depth = depth
        self.sharpness = sharpness
        self.predictor.requires_grad_(True)

    def bias(
        self, layer: int, state: TokenState, num_prefix: int
    ) -> Tensor | None:
        """Key bias (B, 1, 1, num_prefix + N) of block ``layer``, or None."""
        if state.lives is None:
            return None
        return key_bias(state.lives, layer, num_prefix, self.sharpness)

    def after(
        self, layer: int, x: Tensor, state: TokenState, num_prefix: int
    ) -> tuple[Tensor, TokenState]:
        """What happens after block ``layer`` (counted from 1)."""
        if not self.training:
            return super().after(layer, x, state, num_prefix)
        if layer == self.spec.base_layer:
            # lives are a function of x as well: blocks before learn by them
            scores = self.predictor(x, num_prefix)
            mean, std = self.spec.life_moments(scores.shape[1], self.depth)
            lives = scores_to_lives(scores, mean, std)
            state = state.having(lives=lives)
        return x, state
