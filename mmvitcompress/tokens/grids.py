"""Grids of tokens, how merges of neighbours shrink them, and the way back."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int]
"""Height and width of a token grid, in tokens."""

STEPS: dict[str, Grid] = {
    'horizontal': (1, 2),
    'vertical': (2, 1),
    'symmetric': (2, 2),
    'diagonal': (2, 1),
}
"""By how much each direction shrinks the grid's height and width."""


def merged_grid(grid: Grid, direction: str) -> Grid:
    """Shrink a grid by one merge; odd sizes are rounded up.

    A diagonal merge halves the height: of every 2x2 block it keeps one token
    per diagonal.
    """
    step_h, step_w = STEPS[direction]
    return -(-grid[0] // step_h), -(-grid[1] // step_w)


def merge_factors(directions: Sequence[str]) -> Grid:
    """Multiply up by how much merges shrank height and width."""
    height = width = 1
    for direction in directions:  # which graphs can follow, unlike math.prod
        step_h, step_w = STEPS[direction]
        height, width = height * step_h, width * step_w
    return height, width


class GridMerge(NamedTuple):
    """What merges of neighbours did, one after the other."""

    full: Grid  # before the first of them
    directions: tuple[str, ...]

    @property
    def positionwise(self) -> bool:
        """Whether undoing gives one token to a rectangle of positions."""
        return 'diagonal' not in self.directions

    # no property, whose tuple torch 2.7 can't follow
    def factors(self) -> Grid:
        """How many rows and columns of positions a token covers."""
        return merge_factors(self.directions)

    @property
    def grids(self) -> list[Grid]:
        """The grid before the first merge and those after each."""
        grids = [self.full]
        for direction in self.directions:
            grids.append(merged_grid(grids[-1], direction))
        return grids

    def undo(self, x: Tensor, mode: str, fill: Tensor | None) -> Tensor:
        if x.dim() == 3:
            x = to_map(x, self.grids[-1])
        if mode == 'bilinear' or self.positionwise:
            return _upsample(x, self.factors(), self.full, mode)
        # merge by merge, since shears don't commute with upsampling
        grids, directions = self.grids[::-1], self.directions[::-1]
        for direction, (_, grid) in zip(directions, pairwise(grids)):
            x = _upsample(x, STEPS[direction], grid, 'nearest')
            if direction == 'diagonal':
                x = shear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x

    def tokens(self, device: torch.device) -> Tensor:
        """Which token covers each position of the full grid, (H · W).

        What :meth:`undo` says of tokens that are their own numbers, without
        the maps.
        """
        rows, columns = (torch.arange(n, device=device) for n in self.full)
        row = rows[:, None].expand(*self.full)
        column = columns.expand(*self.full)
        for grid, direction in zip(self.grids, self.directions):
            if direction == 'diagonal':
                partner = column + 1 - 2 * (column % 2)
                paired = (row % 2 == 1) & (column < grid[1] // 2 * 2)
                column = torch.where(paired, partner, column)
            height, width = STEPS[direction]
            row, column = row // height, column // width
        return (row * self.grids[-1][1] + column).flatten()

    def apply(self, function) -> 'GridMerge':
        return self

    def halved(self) -> 'GridMerge':
        """The same merges of a grid whose 2×2 tokens became one."""
        # 2×2 tokens of a diagonal merge cover 4×2 positions, no longer askew
        directions = tuple(
            'vertical' if direction == 'diagonal' else direction
            for direction in self.directions
        )
        return GridMerge(merged_grid(self.full, 'symmetric'), directions)


def to_map(tokens: Tensor, grid: Grid) -> Tensor:
    """(B, h·w, C) → (B, C, h, w), a view in channels-last order."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def shear(x: Tensor) -> Tensor:
    """Swap the columns 2j and 2j+1 in every odd row of (B, H, W, D).

    This turns diagonal neighbours into vertical ones. It is its own inverse.
    A last column without a partner stays where it is.
    """
    even = x.shape[2] // 2 * 2
    out = x.clone()
    pairs = x[:, 1::2, :even].unflatten(2, (-1, 2))
    out[:, 1::2, :even] = pairs.flip(3).flatten(2, 3)
    return out


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
