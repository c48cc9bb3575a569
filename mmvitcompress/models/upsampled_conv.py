"""3×3 convolutions of upsampled maps, without upsampling first.

Convolving and bilinear upsampling are both linear, so each of the nine taps
can mix channels at the low resolution, where there are 4, 16 or 64 times
fewer positions. What is left, upsampling and shifting by one pixel, works on
rows and columns separately: two products with small matrices.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def conv_of_upsampled(
    x: Tensor,
    weight: Tensor,
    size: tuple[int, int],
    align_corners: bool = False,
) -> Tensor:
    """``conv2d(interpolate(x, size, mode='bilinear'), weight, padding=1)``.

    The same numbers, up to rounding, borders included. For C input and O
    output channels it costs 9·C·O multiply-accumulates for each position of
    ``x`` and 3·O·(h·w + h·H)·W for upsampling, in place of 9·C·O for each
    position of the result.

    Args:
        x: (B, C, h, w).
        weight: (O, C, 3, 3).
        size: (H, W) of the result.
        align_corners: As of ``interpolate``. Defaults to False.

    Returns:
        (B, O, H, W).
    """
    batch, channels, height, width = x.shape
    out = weight.shape[0]
    rows = shifted_upsampling(height, size[0], x, align_corners)
    columns = shifted_upsampling(width, size[1], x, align_corners)
    taps = weight.permute(2, 3, 0, 1).reshape(9 * out, channels)
    x = torch.matmul(taps, x.flatten(2))  # (B, 9·O, h·w)
    x = x.view(batch, 3, 3, out, height, width).permute(0, 3, 1, 4, 2, 5)
    x = x.reshape(batch, out, 3 * height, 3 * width)
    return torch.matmul(torch.matmul(rows, x), columns.t())


def shifted_upsampling(
    length: int, size: int, like: Tensor, align_corners: bool = False
) -> Tensor:
    """Upsampling of a line and the shifts of a kernel of 3, as a matrix.

    Args:
        length: Positions before.
        size: Positions after.
        like: A tensor whose type and device the matrix gets.
        align_corners: As of ``interpolate``. Defaults to False.

    Returns:
        (size, 3 · length): three matrices side by side, one for each tap;
        beyond the borders there is zero.
    """
    # as PyTorch itself upsamples each unit vector; never in half precision,
    # for which not all devices have kernels
    exact = torch.promote_types(like.dtype, torch.float32)
    units = torch.eye(length, dtype=exact, device=like.device)[None]
    line = F.interpolate(
        units, size=size, mode='linear', align_corners=align_corners
    )[0].t()  # (size, length)
    line = F.pad(line, (0, 0, 1, 1)).to(like.dtype)
    return torch.cat([line[tap : tap + size] for tap in range(3)], 1)
