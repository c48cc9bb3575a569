"""ATME: asymmetric token merging (CAIT III-B), and its inverse.

Neighbouring patch tokens are concatenated and fused by one linear layer,
horizontally or vertically, so that what remains is again a rectangular grid.
Prefix tokens are never merged. Restoring upsamples by the same factors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.specs import (
    Grid,
    fan_in,
    merge_factors,
    merged_grid,
)
from mmvitcompress.tokens.state import TokenState

RESTORE_MODES = ('nearest', 'bilinear')


def check_restore_mode(name: str, mode: str) -> None:
    """Raise ConfigError unless merges can be undone by ``mode``."""
    if mode not in RESTORE_MODES:
        raise ConfigError(
            f"{name} must be 'nearest' or 'bilinear', but got {mode!r}"
        )


def _pad_to_even(x: Tensor, dim: int) -> Tensor:
    """Repeat the last row or column if their number is odd.

    The lone token is then fused with itself: under mean weights it stays as
    it is.
    """
    size = x.shape[dim]
    if size % 2 == 0:
        return x
    return torch.cat([x, x.narrow(dim, size - 1, 1)], dim)


def shear(x: Tensor) -> Tensor:
    """Swap the columns 2j and 2j+1 in every odd row of (B, H, W, D).

    This turns diagonal neighbours into vertical ones. It is its own inverse.
    A last column without a partner stays where it is.
    """
    even_width = x.shape[2] // 2 * 2
    odd = x[:, 1::2, :even_width]
    swapped = odd.unflatten(2, (-1, 2)).flip(3).flatten(2, 3)
    out = x.clone()
    out[:, 1::2, :even_width] = swapped
    return out


def neighbours(x: Tensor, direction: str) -> Tensor:
    """Concatenate the tokens that one merge fuses.

    Args:
        x: Token grid (B, H, W, D).
        direction: See :data:`~mmvitcompress.tokens.specs.STEPS`.

    Returns:
        (B, H', W', k·D) with k tokens to a group, the upper left one first.
        For a horizontal merge of an even width this is a view.
    """
    if direction in ('horizontal', 'symmetric'):
        x = _pad_to_even(x, 2)
        # side by side in memory: pairs along the width are a reshape
        x = x.unflatten(2, (-1, 2)).flatten(3)  # (B, H, W/2, 2D)
    if direction == 'diagonal':
        x = shear(x)
    if direction in ('vertical', 'symmetric', 'diagonal'):
        x = _pad_to_even(x, 1)
        x = x.unflatten(1, (-1, 2)).transpose(2, 3)  # (B, H/2, W, 2, D)
        x = x.flatten(3)
    return x


class TokenMerge(nn.Module):
    """One merge: group neighbours, fuse each group by one linear layer.

    The fuse starts as the mean of the group, so that an untrained merge is
    average pooling and a pretrained model's knowledge survives.

    Args:
        dim: Embedding width D.
        direction: 'horizontal', 'vertical', 'symmetric' or 'diagonal'.
        conv: Whether a residual-free depthwise 3x3 convolution follows
            (ATME+Conv, CAIT Table XIII); it starts as the identity.
    """

    def __init__(self, dim: int, direction: str, conv: bool = False):
        super().__init__()
        self.direction = direction
        self.group = fan_in(direction)
        self.fuse = nn.Linear(self.group * dim, dim)
        self.conv = (
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim) if conv else None
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Make the fuse a mean and the convolution the identity."""
        dim = self.fuse.out_features
        mean = torch.eye(dim) / self.group
        self.fuse.weight.copy_(mean.repeat(1, self.group))
        self.fuse.bias.zero_()
        if self.conv is not None:
            nn.init.dirac_(self.conv.weight, groups=dim)
            nn.init.zeros_(self.conv.bias)

    def forward(
        self, x: Tensor, state: TokenState, num_prefix: int
    ) -> tuple[Tensor, TokenState]:
        """Merge the patch tokens of (B, num_prefix + h·w, D)."""
        prefix, patches = x[:, :num_prefix], x[:, num_prefix:]
        patches = patches.unflatten(1, state.grid)  # (B, h, w, D)
        patches = self.fuse(neighbours(patches, self.direction))
        if self.conv is not None:
            patches = self.conv(patches.permute(0, 3, 1, 2))
            patches = patches.permute(0, 2, 3, 1)
        grid = tuple(patches.shape[1:3])
        patches = patches.flatten(1, 2)
        x = torch.cat([prefix, patches], 1) if num_prefix else patches
        return x, state.having(
            grid=grid,
            directions=(*state.directions, self.direction),
        )

    def extra_repr(self) -> str:
        return f'direction={self.direction!r}'


def unmerge(x: Tensor, state: TokenState, mode: str = 'nearest') -> Tensor:
    """Bring a merged map back to the full grid.

    Args:
        x: Map (B, C, h, w) on ``state.grid``.
        state: State with which the map left the backbone.
        mode: 'nearest' hands each token back to all positions that it covers,
            'bilinear' interpolates between the tokens. Defaults to 'nearest'.

    Returns:
        (B, C, H, W) on ``state.full_grid``; ``x`` itself if nothing was
        merged.
    """
    check_restore_mode('mode', mode)
    if mode == 'nearest' and 'diagonal' in state.directions:
        return _unmerge_stepwise(x, state)
    return _upsample(x, merge_factors(state.directions), state.full_grid, mode)


def _upsample(x: Tensor, factors: Grid, size: Grid, mode: str) -> Tensor:
    if factors == (1, 1):
        return x
    align = None if mode == 'nearest' else False
    x = F.interpolate(
        x,
        size=(x.shape[2] * factors[0], x.shape[3] * factors[1]),
        mode=mode,
        align_corners=align,
    )
    # an odd grid was rounded up when it was merged
    return x[:, :, : size[0], : size[1]]


def _unmerge_stepwise(x: Tensor, state: TokenState) -> Tensor:
    """Undo merge by merge, since shears don't commute with upsampling."""
    grids = [state.full_grid]
    for direction in state.directions:
        grids.append(merged_grid(grids[-1], direction))
    for direction, grid in zip(
        reversed(state.directions), reversed(grids[:-1])
    ):
        x = _upsample(x, merge_factors([direction]), grid, 'nearest')
        if direction == 'diagonal':
            x = shear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return x
