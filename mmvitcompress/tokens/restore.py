"""From reduced tokens back to full feature maps."""

from typing import NamedTuple

import torch
from torch import Tensor

from mmvitcompress.tokens.atme import unmerge
from mmvitcompress.tokens.state import TokenState


class TokenMap(NamedTuple):
    """A backbone output that has not been restored yet.

    Attributes:
        tokens: Patch tokens (B, n, C), without prefix tokens.
        state: How they were reduced.
    """

    tokens: Tensor
    state: TokenState


def unslim(
    tokens: Tensor, state: TokenState, fill: Tensor | None = None
) -> Tensor:
    """Put slimmed patches back in raster order.

    Args:
        tokens: Remaining patches (B, n, C) in the order of ``state.order``.
        state: State with which they left the backbone.
        fill: Token (C) that takes the place of patches that have left
            ("unstructured"). By default they return with the feature of the
            block after which they left ("structured", VTC-LFC).

    Returns:
        (B, h·w, C); ``tokens`` itself if they lie in raster order.
    """
    if state.order is None:
        return tokens
    batch, total = state.order.shape
    if fill is None:
        rest = list(reversed(state.departed))
    else:
        missing = total - tokens.shape[1]
        rest = [fill.to(tokens.dtype).expand(batch, missing, -1)]
    ordered = torch.cat([tokens, *rest], 1)
    places = state.places
    if places is None:
        places = state.order.argsort(1)
    index = places.unsqueeze(-1).expand(-1, -1, ordered.shape[-1])
    return ordered.gather(1, index)


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h·w, C) → (B, C, h, w), a view in channels-last order."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def restore(
    tokens: Tensor,
    state: TokenState,
    mode: str = 'nearest',
    fill: Tensor | None = None,
) -> Tensor:
    """Full feature map (B, C, H, W) of reduced patch tokens (B, n, C).

    The exact partner of all reductions recorded in ``state``: slimmed patches
    return to their own places, merged ones to all places that they cover.

    Args:
        tokens: Patch tokens (B, n, C), without prefix tokens.
        state: State with which they left the backbone.
        mode: How merges are undone, 'nearest' or 'bilinear'; see
            :func:`~mmvitcompress.tokens.atme.unmerge`.
        fill: What fills the places of slimmed patches; see :func:`unslim`.
    """
    merged = to_map(unslim(tokens, state, fill), state.grid)
    return unmerge(merged, state, mode)
