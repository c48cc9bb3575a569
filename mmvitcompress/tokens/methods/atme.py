"""ATME: asymmetric token merging (CAIT III-B); its inverse is in grids.py.

Neighbouring patch tokens are concatenated and fused by one linear layer,
horizontally or vertically, so that what remains is again a rectangular grid.
Prefix tokens are never merged. Restoring upsamples by the same factors.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.grids import (
    STEPS,
    Grid,
    GridMerge,
    merge_factors,
    merged_grid,
    shear,
)
from mmvitcompress.tokens.method import TokenMethod
from mmvitcompress.tokens.placement import (
    Layers,
    most_merges,
    place_evenly,
    place_merges,
)
from mmvitcompress.tokens.spec import Counts, Size, TokenSpec
from mmvitcompress.tokens.state import TokenState
from mmvitcompress.utils.checks import (
    check_choice,
    check_flag,
    check_layers,
    layer_tuple,
)


@dataclass(frozen=True)
class TokenMerging(TokenSpec):
    """Where and how neighbouring tokens are merged (ATME, CAIT III-B).

    Args:
        layers: Blocks before whose attention a merge takes place.
        directions: 'alternate', one direction for all layers, or one for each
            layer: 'horizontal', 'vertical', 'symmetric' (2x2 blocks) or
            'diagonal'. Defaults to 'alternate'.
        first: The direction that 'alternate' starts with, 'horizontal' or
            'vertical'; not saved, since ``directions`` are resolved then.
            Defaults to 'horizontal'.
        conv: Whether a depthwise 3x3 convolution follows each fuse
            (ATME+Conv, Table XIII). Defaults to False.
    """

    key: ClassVar[str] = 'token_merging'
    start: ClassVar[str] = 'new merges start as means'

    layers: tuple[int, ...]
    directions: tuple[str, ...] | str = 'alternate'
    first: str = field(default='horizontal', compare=False, repr=False)
    conv: bool = False

    def __post_init__(self):
        layers = layer_tuple('token_merging.layers', self.layers)
        object.__setattr__(self, 'layers', layers)
        object.__setattr__(self, 'directions', self._resolve(len(layers)))
        check_flag('token_merging.conv', self.conv)

    def _resolve(self, count: int) -> tuple[str, ...]:
        directions = self.directions
        pair = ('horizontal', 'vertical')
        check_choice('token_merging.first', self.first, pair)
        if directions == 'alternate':
            start = pair.index(self.first)
            return tuple(pair[(start + i) % 2] for i in range(count))
        if isinstance(directions, str) or not isinstance(directions, Iterable):
            directions = (directions,) * count
        for direction in directions:
            choices = ('alternate', *STEPS)
            check_choice('token_merging.directions', direction, choices)
        if len(directions) != count:
            raise ConfigError(
                f'token_merging.directions must name one direction for each '
                f'of {count} layers, but got {len(directions)}'
            )
        return tuple(directions)

    @classmethod
    def for_target(
        cls, arch, img_size, reduction_of, target: float, most: float = 1.0
    ) -> 'TokenMerging':
        grid, depth = arch.mergeable(img_size)
        # along the longer side first, so that both come to an end together
        first = 'vertical' if grid[0] > grid[1] else 'horizontal'

        def saved(layers: Layers) -> float:
            return reduction_of(cls(layers, first=first))

        limit = most_merges(grid, depth)
        if most < 1:
            placement = place_evenly(saved, depth, limit, target, most)
        else:
            placement = place_merges(saved, depth, limit, target)
        return cls(placement.layers, first=first)

    def summary(self) -> str:
        merges = ', '.join(
            f'{layer} ({direction})'
            for layer, direction in zip(self.layers, self.directions)
        )
        return f'merges before blocks: {merges or "none"}'

    def to_dict(self) -> dict:
        content = super().to_dict()
        del content['first']  # directions are resolved
        return content

    def is_empty(self) -> bool:
        return not self.layers

    def parts(self, depth: int) -> dict[str, object]:
        return {
            str(layer - 1): direction + ' with conv' * self.conv
            for layer, direction in zip(self.layers, self.directions)
        }

    def check(self, arch) -> None:
        check_layers(
            'token_merging.layers',
            self.layers,
            arch.token_depth,
            arch.layers_counted,
        )

    def last_gridded(self) -> int | None:
        return self.layers[-1] if self.layers else None

    def grid_step(self) -> Grid:
        return merge_factors(self.directions)

    def direction_at(self, layer: int) -> str | None:
        """The merge before block ``layer``, or None."""
        if layer not in self.layers:
            return None
        return self.directions[self.layers.index(layer)]

    def before(self, layer: int, size: Size) -> Size:
        direction = self.direction_at(layer)
        if direction is None:
            return size
        height, width = merged_grid(size.grid, direction)
        return Size(height * width, (height, width))

    def macs(self, layer: int, counts: Counts, arch, norm: int) -> int:
        direction = self.direction_at(layer)
        if direction is None:
            return 0
        dim = arch.token_dim
        fuse = prod(STEPS[direction]) * dim**2
        return counts.attention * (fuse + 9 * dim * self.conv)

    def params(self, layer: int, arch) -> int:
        direction = self.direction_at(layer)
        if direction is None:
            return 0
        dim = arch.token_dim
        fuse = prod(STEPS[direction]) * dim**2 + dim
        return fuse + 10 * dim * self.conv

    def begins(self) -> int:
        return self.layers[0]

    def build(
        self, arch, depth: int, training: bool = False
    ) -> 'NeighbourMerging':
        return NeighbourMerging(self, arch, depth)


def _pad_to_even(x: Tensor, dim: int) -> Tensor:
    """Repeat the last row or column if it is alone: fused with itself it stays
    as it is under mean weights."""
    size = x.shape[dim]
    if size % 2 == 0:
        return x
    return torch.cat([x, x.narrow(dim, size - 1, 1)], dim)


def neighbours(x: Tensor, direction: str) -> Tensor:
    """Concatenate the tokens of (B, H, W, D) that one merge fuses.

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
        x = x.unflatten(1, (-1, 2)).transpose(2, 3).flatten(3)
    return x


def merged(state: TokenState, direction: str) -> TokenState:
    """The state after one merge of neighbours."""
    last = state.newest(GridMerge)
    full, before = last or (state.grid, ())
    record = GridMerge(full, (*before, direction))
    grid = merged_grid(state.grid, direction)
    return state.recording(record, last).having(grid=grid)


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
        self.group = prod(STEPS[direction])
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
        prefix, x = x[:, :num_prefix], x[:, num_prefix:]
        x = x.unflatten(1, state.grid)  # (B, h, w, D)
        x = self.fuse(neighbours(x, self.direction))
        if self.conv is not None:
            x = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x.flatten(1, 2)
        x = torch.cat([prefix, x], 1) if num_prefix else x
        return x, merged(state, self.direction)


class NeighbourMerging(TokenMethod, nn.ModuleDict):
    """The merges of a net, keyed by the index (from 0) of the block after."""

    def __init__(self, spec: TokenMerging, arch, depth: int):
        super().__init__(arch.num_prefix_tokens)
        for layer, direction in zip(spec.layers, spec.directions):
            if layer <= depth:
                merge = TokenMerge(arch.token_dim, direction, spec.conv)
                self[str(layer - 1)] = merge

    def before(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        if str(layer - 1) not in self:
            return x, state
        return self[str(layer - 1)](x, state, self.num_prefix)
