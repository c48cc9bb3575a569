"""Parts of a graph whose images may be of any size.

Shapes are symbols there, known when the graph runs: nothing may branch on
them, and what other runtimes have for fixed sizes only is put another way.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.tokens.grids import Grid


def interpolated_position(vit: nn.Module, grid: Grid) -> Tensor:
    """Position embedding for a grid that is known when the graph runs."""
    count = vit._pos_prefix
    prefix, pos = vit.pos_embed[:, :count], vit.pos_embed[:, count:]
    pos = pos.transpose(1, 2).unflatten(2, vit.arch.pos_grid)
    pos = F.interpolate(pos, grid, mode='bicubic', antialias=True)
    return torch.cat([prefix, pos.flatten(2).transpose(1, 2)], 1)


class AdaptivePool(nn.Module):
    """Adaptive average pooling as two matrix products.

    Graphs of other runtimes have windows of fixed sizes only.

    Args:
        output_size: Height and width after pooling; None for those before.
    """

    def __init__(self, output_size: tuple[int | None, int | None]):
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H', W'), ``output_size`` = (H', W')."""
        rows, columns = self.output_size
        if rows is not None:
            x = _windows(x.shape[2], rows, x) @ x
        if columns is not None:
            x = x @ _windows(x.shape[3], columns, x).transpose(0, 1)
        return x


def _windows(size: int, count: int, like: Tensor) -> Tensor:
    """(count, size), by what each of ``size`` positions counts in a window."""
    position = torch.arange(size, device=like.device)
    window = torch.arange(count, device=like.device)[:, None]
    start = window * size // count
    end = ((window + 1) * size + count - 1) // count
    inside = ((position >= start) & (position < end)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def replace_pools(network: nn.Module) -> None:
    """Let adaptive average pools of ``network`` take maps of any size."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                size = child.output_size
                size = size if isinstance(size, tuple) else (size, size)
                setattr(module, name, AdaptivePool(size))


def divisible(images: Tensor, step: Grid) -> Tensor:
    """``images``, cut up and put together: fails at other sizes, where
    patches would be left out without a word."""
    if math.prod(step) == 1:
        return images
    x = images.unflatten(3, (-1, step[1])).unflatten(2, (-1, step[0]))
    return x.flatten(4, 5).flatten(2, 3)
