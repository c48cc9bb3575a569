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
    of the interpolation itself for sizes that aren't known; here it
    interpolates constants, and gradients pass through the products.
    """
    prefix, grid = pos[:, :num_prefix], pos[:, num_prefix:]
    rows, columns = (_weights(a, b, pos) for a, b in zip(old, new))
    with torch.autocast(pos.device.type, enabled=False):
        grid = grid.to(rows.dtype).unflatten(1, old)
        grid = columns @ grid  # (1, h, w', D)
        grid = rows @ grid.flatten(2)  # (1, h', w'·D)
    grid = grid.view(1, new[0] * new[1], pos.shape[2])
    return torch.cat([prefix, grid.to(pos.dtype)], 1)


def _weights(old: int, new: int, like: Tensor) -> Tensor:
    """(new, old), by what each old position counts at the new ones."""
    # in single precision as timm does it, but not rounded to half ones
    same = torch.eye(old, device=like.device)[None, None]
    return F.interpolate(same, (new, old), mode='bicubic', antialias=True)[
        0, 0
    ]
