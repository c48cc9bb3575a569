"""Rotary positions: from coordinates of tokens to queries and keys turned.

Su et al., "RoFormer" (2021); on both sides of images as EVA-02 (Fang et al.,
2023) and DINOv3 (Siméoni et al., 2025) have them. Tables are made of the
coordinates of all tokens at once, whoever made those: a token that stands for
several patches is at their mean.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.arch.rotary import Rotary
from mmvitcompress.tokens.grids import Grid, GridMerge
from mmvitcompress.tokens.restore import covered_means, covering
from mmvitcompress.tokens.state import TokenState


class Turns(NamedTuple):
    """By what tokens are turned, pair of channels by pair.

    Both are (1 or B, n, pairs), in float32 at least; prefix tokens, which are
    not turned, have cosines of 1.
    """

    cos: Tensor
    sin: Tensor


class RotaryPositions(nn.Module):
    """Makes the tables of an arch.

    Frequencies are worked out in float32, as those who trained the models
    have them, and stay so whatever the dtype of the net.

    Args:
        rope: How coordinates turn channels.
        head_dim: Channels of a head, before pruning.
    """

    def __init__(self, rope: Rotary, head_dim: int):
        super().__init__()
        self.rope, self.count = rope, head_dim // 4
        self.register_buffer('periods', self._periods(), persistent=False)

    def _periods(self) -> Tensor:
        exponents = torch.arange(self.count, dtype=torch.float32) / self.count
        return self.rope.temperature**exponents

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        if self.periods.dtype in (torch.float16, torch.bfloat16):
            self.periods = self._periods().to(self.periods.device)
        return self

    def coordinates(self, grid: Grid) -> Tensor:
        """Where the patches of a grid stand, (1, h · w, 2), float32."""
        rope, device = self.rope, self.periods.device
        sides = []
        for axis, side in enumerate(grid):
            place = torch.arange(side, device=device, dtype=torch.float32)
            if rope.coords == 'normalized':
                place = (place + 0.5 + rope.offset) / side * 2 - 1
            else:
                place = place + rope.offset
            if rope.reference is not None:
                place = place / side * rope.reference[axis]
            sides.append(place)
        height, width = grid
        y = sides[0][:, None].expand(height, width)
        x = sides[1][None].expand(height, width)
        both = (x, y) if rope.x_first else (y, x)
        return torch.stack(both, -1).flatten(0, 1)[None]

    def of_tokens(self, x: Tensor, state: TokenState, prefix: int) -> Tensor:
        """Where patch tokens stand, (1 or B, n, 2), float32.

        Args:
            x: Tokens (B, prefix + n, D).
            state: What became of them.
            prefix: How many tokens before the patches there are.
        """
        places = self.coordinates(state.full_grid)
        if not state.undo:
            return places
        # merged neighbours are the same ones in all images
        alike = all(isinstance(record, GridMerge) for record in state.undo)
        batch, count = 1 if alike else x.shape[0], x.shape[1] - prefix
        index = covering(state, batch, count, places.device)
        return covered_means(places.expand(batch, -1, -1), index, count)

    def forward(
        self, places: Tensor, prefix: int, dtype: torch.dtype
    ) -> Turns:
        """Tables for patches at coordinates (1 or B, n, 2).

        Args:
            places: From :meth:`of_tokens`.
            prefix: How many tokens before the patches there are.
            dtype: Of the tokens; only float64 makes a difference.
        """
        periods = self.periods
        if self.rope.coords == 'normalized':
            if dtype == torch.float64:
                places, periods = places.double(), periods.double()
            angles = 2 * math.pi * places[..., None] / periods
        else:
            angles = places[..., None] * (1 / periods.float())
        angles = angles.flatten(2)  # (1 or B, n, pairs)
        pad = (0, 0, prefix, 0)
        return Turns(
            F.pad(angles.cos(), pad, value=1.0), F.pad(angles.sin(), pad)
        )


def turned(x: Tensor, turns: Turns, index: Tensor | None = None) -> Tensor:
    """Turn queries or keys (B, heads, n, width) of tokens.

    Args:
        x: Channel i of the first half is the partner of channel i of the
            second.
        turns: For all pairs that a head had before pruning.
        index: (heads, width / 2), which of them each head has kept. Defaults
            to None: all.
    """
    if index is None:
        cos, sin = (table[:, None] for table in turns)
    else:
        cos, sin = (
            table.index_select(2, index.flatten())
            .unflatten(2, index.shape)
            .transpose(1, 2)
            for table in turns
        )
    a, b = x.chunk(2, -1)
    x = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
    return x.to(a.dtype)


def spread_pairs(heads: int, kept: int, pairs: int) -> Tensor:
    """(heads, kept), as many pairs of all, evenly: what a net starts with
    that was pruned by no scores."""
    return (torch.arange(kept) * pairs // kept).repeat(heads, 1)
