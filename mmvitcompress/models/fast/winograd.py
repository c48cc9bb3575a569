"""3×3 convolutions with a quarter of the multiplications.

Winograd's minimal filtering F(4×4, 3×3), as of Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", CVPR 2016: 4×4 results depend on
6×6 values; both these and the kernel are taken to 36 points, at which
convolving is one product of channels each, where 16 · 9 = 144 stood before.
The numbers are those of the convolution up to rounding, which in float32 is
some 10 times larger than the direct one's: about 1e-5 of the largest result.

Going to the points is linear in rows and in columns, and so is bilinear
upsampling. A map that is to be upsampled first goes there at its own size.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from mmvitcompress.models.fast.upsampled_conv import upsampling

# of the polynomial's points 0, 1, -1, 2, -2 and infinity
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
# tiles of 4×4 that are worked on at a time, so that they stay in the cache
ROWS, COLUMNS = 8, 32
# Below, transforms and kernels cost more than the products spare. Products
# grow with C·O, transforms with C + O: what counts is C·O / (C + O).
LEAST_CHANNELS, LEAST_POSITIONS = 80, 1024


def winograd_pays(x: Tensor, weight: Tensor, size: Sequence[int]) -> bool:
    """Whether :func:`winograd_conv` is faster here than a convolution.

    It is on CPUs at inference, in single or double precision, for enough
    channels and positions; graphs to be exported keep their convolutions.

    Args:
        x: (B, C, h, w).
        weight: (O, C, 3, 3).
        size: (H, W) of the result.
    """
    out, channels = weight.shape[:2]
    return (
        reorders(x)
        and out * channels >= LEAST_CHANNELS * (out + channels)
        and x.shape[0] * size[0] * size[1] >= LEAST_POSITIONS
    )


def reorders(x: Tensor) -> bool:
    """Whether an eager CPU runs inference in full precision, where it pays to
    compute the same numbers in another order.

    It doesn't while someone watches the operators: what a model costs is by
    convention the same on all devices.
    """
    return (
        not torch.compiler.is_exporting()
        and not is_in_torch_dispatch_mode(include_infra_modes=False)
        and x.device.type == 'cpu'
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled('cpu')
    )


def winograd_conv(
    maps: Sequence[Tensor],
    weights: Sequence[Tensor],
    size: tuple[int, int],
    bias: Tensor | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Sum of ``conv2d(interpolate(x, size, 'bilinear'), weight, padding=1)``.

    For inference; gradients flow, but much is kept for them.

    Args:
        maps: (B, C_i, h_i, w_i), none of them larger than ``size``.
        weights: (O, C_i, 3, 3).
        size: (H, W) of the result.
        bias: (O). Defaults to none.
        align_corners: As of ``interpolate``. Defaults to False.

    Returns:
        (B, O, H, W) in channels-last order.
    """
    like = maps[0]
    batch, out = like.shape[0], weights[0].shape[0]
    tiles = [-(-side // 4) for side in size]
    kernels = [_kernel_points(weight) for weight in weights]
    bands = [
        [
            _band(length, side, like, align_corners)
            for length, side in zip(x.shape[2:], size)
        ]
        for x in maps
    ]
    maps = [x.permute(0, 2, 3, 1).contiguous() for x in maps]
    result = like.new_empty(batch, tiles[0], 4, tiles[1], 4, out)
    for image in range(batch):
        for top, bottom in _blocks(tiles[0], ROWS):
            for left, right in _blocks(tiles[1], COLUMNS):
                points = None
                for x, kernel, (rows, columns) in zip(maps, kernels, bands):
                    values = _input_points(
                        x[image],
                        _within(rows, top, bottom, size[0]),
                        _within(columns, left, right, size[1]),
                    )
                    points = (
                        torch.bmm(values, kernel)
                        if points is None
                        else points.baddbmm_(values, kernel)
                    )
                block = _results(points, bottom - top, right - left)
                if bias is not None:
                    block = block + bias
                result[image, top:bottom, :, left:right] = block.permute(
                    2, 1, 3, 0, 4
                )
    result = result.view(batch, 4 * tiles[0], 4 * tiles[1], out)
    return result[:, : size[0], : size[1]].permute(0, 3, 1, 2)


def _blocks(count: int, most: int) -> Iterator[tuple[int, int]]:
    """Ranges of about equal length, at most ``most``."""
    number = -(-count // most)
    for index in range(number):
        yield index * count // number, (index + 1) * count // number


def _band(length: int, size: int, like: Tensor, align_corners: bool) -> Tensor:
    """A line, upsampled and padded, to the points of its tiles.

    Returns:
        (tiles, 6, length).
    """
    tiles = -(-size // 4)
    line = upsampling(length, size, like, align_corners)
    line = F.pad(line, (0, 0, 1, 4 * tiles + 1 - size))
    windows = line.unfold(0, 6, 4)  # (tiles, length, 6)
    return torch.matmul(like.new_tensor(_INPUT), windows.transpose(1, 2))


def _within(
    band: Tensor, first: int, last: int, size: int
) -> tuple[Tensor, slice]:
    """The band of some tiles, and the values that these depend on.

    Returns:
        (6·tiles, values), point by point; and which values.
    """
    length = band.shape[2]
    # two more than needed, as corners may be aligned or not
    start = max(0, (4 * first - 1) * length // size - 2)
    end = min(length, -(-(4 * last + 1) * length // size) + 2)
    band = band[first:last, :, start:end]
    return band.transpose(0, 1).reshape(-1, end - start), slice(start, end)


def _input_points(
    x: Tensor, rows: tuple[Tensor, slice], columns: tuple[Tensor, slice]
) -> Tensor:
    """(h, w, C) → (36, tiles, C)."""
    x = x[rows[1], columns[1]]
    height, _, channels = x.shape
    # (h', 6, columns of tiles · C)
    x = torch.bmm(columns[0].expand(height, -1, -1), x).view(height, 6, -1)
    x = torch.bmm(rows[0].expand(6, -1, -1), x.transpose(0, 1))
    return x.view(36, -1, channels)


def _kernel_points(weight: Tensor) -> Tensor:
    """(O, C, 3, 3) → (36, C, O), columns before rows."""
    kernel = weight.new_tensor(_KERNEL)
    taps = torch.einsum('xh,yw->yxhw', kernel, kernel).reshape(36, 9)
    points = torch.mm(taps, weight.reshape(-1, 9).t())
    return points.view(36, *weight.shape[:2]).transpose(1, 2)


def _results(points: Tensor, height: int, width: int) -> Tensor:
    """(36, tiles, O) of height × width tiles → columns and rows of tiles
    (4, 4, height, width, O)."""
    out = points.shape[2]
    back = points.new_tensor(_OUTPUT)
    x = torch.bmm(back.expand(6, -1, -1), points.view(6, 6, -1))
    return torch.mm(back, x.view(6, -1)).view(4, 4, height, width, out)
