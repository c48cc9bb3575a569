"""Running a backbone to look into it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedSwin, CompressedViT
from mmvitcompress.models.swin import Swin
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import TokenState

_KNOWN = {cls.forward for cls in (ViT, Swin, CompressedViT, CompressedSwin)}


def backbone_of(model: nn.Module) -> ViT | Swin:
    """The backbone of ours that a model has.

    Raises:
        ConfigError: If it has none, or one that reduces tokens in a way of
            its own, as ToMeViT does.
    """
    backbone = getattr(model, 'backbone', model)
    if type(backbone).forward not in _KNOWN:
        raise ConfigError(
            'pictures of tokens need a backbone of type CompressedViT or '
            f'CompressedSwin, but got {type(backbone).__name__}'
        )
    return backbone


@torch.no_grad()
def run_tokens(
    backbone: ViT | Swin, images: Tensor, take: Sequence[int] | None = None
) -> list[tuple[Tensor, TokenState]]:
    """Tokens and their states after some blocks, whatever a backbone returns.

    Args:
        backbone: Any of ours; run in evaluation mode, and left in its own.
        images: (B, 3, H, W), normalised.
        take: Blocks (of a ViT) or stages (of a Swin), counted from 0.
            Defaults to the last one.

    Raises:
        ConfigError: As of :func:`backbone_of`.
    """
    backbone = backbone_of(backbone)
    family = Swin if isinstance(backbone, Swin) else ViT
    training = backbone.training
    try:
        return family.forward(backbone.eval(), images, take)
    finally:
        backbone.train(training)
