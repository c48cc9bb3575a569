"""Attention in windows of a plain ViT, for large images.

Windows are cut from the grid as it is: after merging they hold as many tokens
as before, which cover a larger part of the image. Prefix tokens stay global:
they attend to all tokens, and every window attends to them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmvitcompress.arch.windows import Windows
from mmvitcompress.models.layers.attend import attend
from mmvitcompress.models.layers.windows import cut, join, to_windows

Heads = tuple[Tensor, Tensor, Tensor]


def windowed_attention(
    qkv: Tensor,
    windows: Windows,
    split_heads: Callable[[Tensor], Heads],
    scale: float,
) -> Tensor:
    """Attention of patches within windows, and of prefix tokens to all.

    Args:
        qkv: Projected tokens (B, prefix + h·w, C), prefix tokens first.
        windows: How the grid is cut; it is padded to whole windows, and what
            is padded is attended to by no one.
        split_heads: (B, n, C) → queries and keys (B, heads, n, d) and values
            (B, heads, n, d').
        scale: Softmax scale.

    Returns:
        (B, prefix + h·w, heads · d').
    """
    height, width = windows.grid
    prefix = qkv.shape[1] - height * width
    patches = cut(
        qkv[:, prefix:].unflatten(1, windows.grid), windows, pad_first=True
    )  # (B · windows, N, C)
    count = patches.shape[0] // qkv.shape[0]
    q, k, v = split_heads(patches)
    if prefix:
        first, *shared = split_heads(qkv[:, :prefix])
        k, v = (
            torch.cat([x.repeat_interleave(count, 0), own], 2)
            for x, own in zip(shared, (k, v))
        )
    mask = _real(windows, prefix, qkv.device)
    if mask is not None:
        mask = mask.repeat(qkv.shape[0], 1)[:, None, None]
    x = attend(q, k, v, mask, scale)
    x = join(x.transpose(1, 2).flatten(2), windows, pad_first=True)
    x = x.flatten(1, 2)  # (B, h·w, heads · d')
    if prefix:
        _, k, v = split_heads(qkv)
        first = attend(first, k, v, scale=scale)
        x = torch.cat([first.transpose(1, 2).flatten(2), x], 1)
    return x


def _real(windows: Windows, prefix: int, device) -> Tensor | None:
    """(windows, prefix + N), which keys aren't padding; None if all are."""
    if windows.padded() == windows.grid:
        return None
    rows, columns = (
        torch.arange(padded, device=device) < side
        for padded, side in zip(windows.padded(), windows.grid)
    )
    real = (rows[:, None] & columns)[None, ..., None]
    real = to_windows(real, windows.window).squeeze(2)
    return F.pad(real, (prefix, 0), value=True)
