"""Parts of a graph whose images may be of any size.

Shapes are symbols there, known when the graph runs: nothing may branch on
them, and what other runtimes have for fixed sizes only is put another way.
"""

import math
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.tokens.grids import Grid


def _upsample(module: nn.Module, x: Tensor) -> Tensor:
    """MMSegmentation's ``Upsample``, whose own sizes can't be symbols."""
    size = [side * int(module.scale_factor) for side in x.shape[2:]]
    return F.interpolate(x, size, None, module.mode, module.align_corners)


class AdaptivePool(nn.Module):
    """Adaptive average pooling as two matrix products.

    Graphs of other runtimes have windows of fixed sizes only. The matrices,
    known when the graph runs, stand first: OpenVINO takes a second one for a
    layer's fixed weights, and crashes.

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
            x = _windows(x.shape[3], columns, x) @ x.transpose(2, 3)
            x = x.transpose(2, 3)
        return x


def _windows(size: int, count: int, like: Tensor) -> Tensor:
    """(count, size), by what each of ``size`` positions counts in a window."""
    position = torch.arange(size, device=like.device)
    window = torch.arange(count, device=like.device)[:, None]
    start = window * size // count
    end = ((window + 1) * size + count - 1) // count
    inside = ((position >= start) & (position < end)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def _is_upsample(module: nn.Module) -> bool:
    kind = type(module)
    ours = kind.__name__ == 'Upsample' and kind.__module__.startswith('mmseg')
    return ours and module.size is None


def free_sizes(network: nn.Module) -> None:
    """Let pools and upsampling of ``network`` take maps of any size."""
    for module in list(network.modules()):
        if _is_upsample(module) and module.scale_factor % 1 == 0:
            module.forward = MethodType(_upsample, module)
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
