"""Position embeddings for other grids than they were made for."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmvitcompress.tokens.grids import Grid


def resample_position(
    pos: Tensor, old: Grid, new: Grid, num_prefix: int
) -> Tensor:
    """Interpolate a position embedding, bicubically and with antialiasing.

    Args:
        pos: (1, num_prefix + h·w, D); entries of prefix tokens stay.
        old: The grid (h, w) that it is for.
        new: The grid (h', w') that it is to be for.
        num_prefix: Entries of prefix tokens.

    Returns:
        (1, num_prefix + h'·w', D), of the same dtype.
    """
    if torch.compiler.is_compiling():
        return _by_products(pos, old, new, num_prefix)
    prefix, grid = pos[:, :num_prefix], pos[:, num_prefix:]
    # not timm's resample_abs_pos_embed, of which some versions return a
    # rectangle of as many tokens as the square unchanged
    grid = grid.float().unflatten(1, old).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, new, mode='bicubic', antialias=True)
    grid = grid.flatten(2).transpose(1, 2).to(pos.dtype)
    return torch.cat([prefix, grid], 1)


def _by_products(pos: Tensor, old: Grid, new: Grid, num_prefix: int) -> Tensor:
    """The same as two matrix products, which sizes that are symbols suit.

    Bicubic interpolation treats rows and columns one after the other, so one
    small matrix for each does all of it. PyTorch can compile no backward pass
    of the interpolation itself for sizes that aren't known, and other
    runtimes know antialiasing in other forms; products are the same to all.
    """
    prefix, grid = pos[:, :num_prefix], pos[:, num_prefix:]
    rows, columns = (_weights(a, b, pos) for a, b in zip(old, new))
    with torch.autocast(pos.device.type, enabled=False):
        grid = grid.to(rows.dtype).unflatten(1, old)
        # matrices of the first place and stacks of the second: OpenVINO takes
        # what depends on shapes only for a layer's fixed weights otherwise
        grid = columns @ grid  # (1, h, w', D)
        grid = rows @ grid.transpose(1, 2)  # (1, w', h', D)
    grid = grid.transpose(1, 2).flatten(1, 2)
    return torch.cat([prefix, grid.to(pos.dtype)], 1)


def _weights(old: int, new: int, like: Tensor) -> Tensor:
    """(new, old), by what each old position counts at the new ones."""
    # in single precision as timm does it, but not rounded to half ones
    if isinstance(new, int):  # to the bit as timm does it
        same = torch.eye(old, device=like.device)[None, None]
        same = F.interpolate(same, (new, old), mode='bicubic', antialias=True)
        return same[0, 0]
    return cubic_weights(old, new, like.device)


def cubic_weights(old: int, new: int, device: torch.device) -> Tensor:
    """Antialiased bicubic interpolation of a line as a matrix (new, old).

    In plain arithmetic, which all runtimes share; ``new`` may be a symbol.
    """
    before, after = (
        torch.arange(n, dtype=torch.float32, device=device) + 0.5
        for n in (old, new)
    )
    scale = old / (after[-1:] + 0.5)
    x = (before - (after * scale)[:, None]).abs() / scale.clamp(min=1)
    # Keys' cubic of a = -1/2, widened where it shrinks
    inner, outer = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x
    weights = torch.where(x < 1, inner, torch.where(x < 2, outer + 2, 0.0))
    return weights / weights.sum(1, keepdim=True)
