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
    ``x`` and 3·O·(3·h·w + h·W)·H for upsampling, in place of 9·C·O for each
    position of the result.

    Args:
        x: (B, C, h, w).
        weight: (O, C, 3, 3).
        size: (H, W) of the result.
        align_corners: As of ``interpolate``. Defaults to False.

    Returns:
        (B, O, H, W) in channels-last order.
    """
    batch, channels, height, width = x.shape
    out = weight.shape[0]
    rows = shifted_upsampling(height, size[0], x, align_corners)
    columns = shifted_upsampling(width, size[1], x, align_corners)
    taps = weight.permute(3, 2, 1, 0).reshape(9, channels, out)
    # nine of both: OpenVINO takes the taps for the weights of one layer
    x = x.permute(0, 2, 3, 1).reshape(1, -1, channels).expand(9, -1, -1)
    x = torch.matmul(x, taps)  # (9, B·h·w, O), columns of the kernel first
    x = x.view(3, 3, batch, height, width * out).permute(2, 0, 1, 3, 4)
    x = x.reshape(batch, 3, 3 * height, width * out)
    x = torch.matmul(rows, x)  # (B, 3, H, w·O)
    x = x.transpose(1, 2).reshape(batch, size[0], 3 * width, out)
    return torch.matmul(columns, x).permute(0, 3, 1, 2)


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
    line = upsampling(length, size, like, align_corners)
    line = F.pad(line, (0, 0, 1, 1))
    return torch.cat([line[tap : tap + size] for tap in range(3)], 1)


def upsampling(
    length: int, size: int, like: Tensor, align_corners: bool = False
) -> Tensor:
    """Linear interpolation of a line as a matrix (size, length)."""
    # by plain sums and products, which other runtimes compute alike; sizes
    # may be symbols, so they are read off tensors
    exact = torch.promote_types(like.dtype, torch.float32)
    before, after = (
        torch.arange(n, dtype=exact, device=like.device)
        for n in (length, size)
    )
    last, end = before[-1:], after[-1:]
    if align_corners:
        at = after * (last / end.clamp(min=1))
    else:
        at = (after + 0.5) * ((last + 1) / (end + 1)) - 0.5
        at = torch.minimum(at.clamp(min=0), last)
    weights = (1 - (at[:, None] - before).abs()).clamp(min=0)
    return weights.to(like.dtype)
