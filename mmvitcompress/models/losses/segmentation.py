"""Losses of medical segmentation, in the form that mmseg's heads call."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import MODELS


def batch_dice_loss(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int | None = 255,
    eps: float = 1e-5,
) -> Tensor:
    """Soft Dice loss over all pixels of a batch, averaged over the classes.

    For class c with probabilities p and truth y ∈ {0, 1}, the sums running
    over all pixels of all images:
    ``1 − (2 Σ p·y + ε) / (Σ p² + Σ y² + ε)``. mmseg's ``DiceLoss`` pools the
    classes of an image instead, so that large ones drown small ones.

    Args:
        logits: (B, C, H, W); C = 1 is a sigmoid, else a softmax.
        labels: Class indices (B, H, W).
        ignore_index: Label of pixels that don't count.
        eps: What keeps absent classes from dividing by zero.

    Returns:
        A scalar, the background's loss included.
    """
    logits = logits.float()
    classes = logits.shape[1]
    if classes == 1:
        scores, indices = logits.sigmoid(), labels.new_ones(1)
    else:
        scores = logits.softmax(1)
        indices = torch.arange(classes, device=labels.device)
    truth = (labels[:, None] == indices[:, None, None]).to(scores.dtype)
    if ignore_index is not None:
        counted = (labels != ignore_index)[:, None].to(scores.dtype)
        scores, truth = scores * counted, truth * counted
    dims = (0, 2, 3)
    shared = 2 * (scores * truth).sum(dims) + eps
    total = scores.square().sum(dims) + truth.sum(dims) + eps
    return (1 - shared / total).mean()


def structure_loss(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int | None = 255,
    window: int = 31,
    emphasis: float = 5.0,
) -> Tensor:
    """Weighted binary cross-entropy plus weighted IoU loss (F³Net, PraNet).

    A pixel weighs ``w = 1 + 5 · |mean of y around it − y|``, which is most at
    edges. With sums over an image, the loss is
    ``Σ w·BCE / Σ w + 1 − (Σ w·p·y + 1) / (Σ w·(p + y − p·y) + 1)``, averaged
    over the batch.

    Args:
        logits: (B, 1, H, W).
        labels: (B, H, W): 0, 1, or ``ignore_index``.
        ignore_index: Label of pixels that don't count.
        window: Side of the square that is averaged over, odd, in pixels;
            outside of the image lies background.
        emphasis: The factor 5 above.

    Returns:
        A scalar.
    """
    logits = logits.float()
    truth = (labels == 1)[:, None].to(logits.dtype)
    # the mean over a square is the mean over rows of the mean over columns
    around = F.avg_pool2d(truth, (window, 1), 1, (window // 2, 0))
    around = F.avg_pool2d(around, (1, window), 1, (0, window // 2))
    weights = 1 + emphasis * (around - truth).abs()
    if ignore_index is not None:
        weights = weights * (labels != ignore_index)[:, None]
    dims = (1, 2, 3)
    entropy = F.binary_cross_entropy_with_logits(
        logits, truth, reduction='none'
    )
    # all pixels of an image may be ignored
    total = weights.sum(dims).clamp(min=1e-6)
    entropy = (weights * entropy).sum(dims) / total
    scores = logits.sigmoid()
    shared = (weights * scores * truth).sum(dims)
    union = (weights * (scores + truth)).sum(dims) - shared
    return (entropy + 1 - (shared + 1) / (union + 1)).mean()


class _Loss(nn.Module):
    """What mmseg's heads ask of a loss."""

    def __init__(self, loss_weight: float, loss_name: str):
        super().__init__()
        if not loss_name.startswith('loss_'):
            raise ConfigError(
                "loss_name must start with 'loss_', or it isn't trained, but "
                f'got {loss_name!r}'
            )
        self.loss_weight = loss_weight
        self.loss_name = loss_name


def _refuse_weights(weight: Tensor | None) -> None:
    if weight is not None:
        raise ConfigError(
            "weights of pixels, such as an OHEM sampler's, have no meaning "
            'for a ratio of areas: leave decode_head.sampler out'
        )


@MODELS.register_module()
class BatchDiceLoss(_Loss):
    """:func:`batch_dice_loss` times a weight, under a name in the log."""

    def __init__(
        self,
        loss_weight: float = 1.0,
        eps: float = 1e-5,
        loss_name: str = 'loss_dice',
    ):
        super().__init__(loss_weight, loss_name)
        self.eps = eps

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None = None,
        ignore_index: int | None = 255,
    ) -> Tensor:
        """Logits (B, C, H, W) and labels (B, H, W) → scalar."""
        _refuse_weights(weight)
        loss = batch_dice_loss(logits, labels, ignore_index, self.eps)
        return self.loss_weight * loss


@MODELS.register_module()
class StructureLoss(_Loss):
    """:func:`structure_loss` times a weight, under a name in the log.

    Raises:
        ConfigError: If the window is even.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        window: int = 31,
        loss_name: str = 'loss_structure',
    ):
        super().__init__(loss_weight, loss_name)
        if window < 1 or window % 2 == 0:
            raise ConfigError(
                f'window must be odd and positive, but got {window}'
            )
        self.window = window

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None = None,
        ignore_index: int | None = 255,
    ) -> Tensor:
        """Logits (B, 1, H, W) and labels (B, H, W) → scalar.

        Raises:
            ConfigError: If there is more than one map of logits.
        """
        _refuse_weights(weight)
        if logits.shape[1] != 1:
            raise ConfigError(
                'StructureLoss is binary: set decode_head.out_channels=1, but '
                f'got {logits.shape[1]} maps'
            )
        loss = structure_loss(logits, labels, ignore_index, self.window)
        return self.loss_weight * loss
