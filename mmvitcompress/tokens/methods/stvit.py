"""STViT-R: a few semantic tokens stand for a Swin's patches, then bring them
back.

Semantic tokens (Chang et al., "Making Vision Transformers Efficient from A
Token Sparsification View", CVPR 2023). In stage 3 of a Swin, units of some
blocks run on the centres of clusters. The first block pools each window to a
few centres, which attend to it and to its surroundings; the second lets them
attend to one another and to all patches; those that follow know semantic
tokens only, within a window or all of them by turns. The last, the recovery,
gives patches what they take from the semantic tokens. With the block before,
whose patches attend in windows, the paper calls that a dumbbell unit.

Blocks keep their own projections and MLPs; instead of position biases they
have layer scales.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.grids import Grid
from mmvitcompress.tokens.method import Attending, TokenMethod
from mmvitcompress.tokens.placement import nearest
from mmvitcompress.tokens.spec import Reach, Size, TokenSpec
from mmvitcompress.tokens.state import Indexed, TokenState
from mmvitcompress.utils.checks import check_extent, layer_tuple

SCALE = 1e-5
"""Where layer scales start, as the authors' do."""


@dataclass(frozen=True)
class SemanticTokens(TokenSpec):
    """Which blocks of a Swin's stage 3 run on semantic tokens.

    Args:
        layers: The first block of each unit, in which semantic tokens are
            made, counted from 1 within stage 3: (2,) for Swin-T and
            (2, 8, 14) for Swin-S.
        length: Blocks of a unit, of which the last is the recovery; at least
            2. Defaults to 5.
        samples: Semantic tokens of a window along each side. Defaults to 3.
        window: Edge of the windows that they are the centres of, in tokens;
            where these don't divide a grid, as few as cover it are of about
            equal size. Defaults to 7.
        overlap: By how much the patches that a window's semantic tokens
            attend to first are more than the window along each side, in
            tokens. Defaults to 3.
    """

    key: ClassVar[str] = 'semantic_tokens'
    families: ClassVar[tuple[str, ...]] = ('swin',)
    start: ClassVar[str] = (
        f'layer scales of blocks with semantic tokens start at {SCALE:g}'
    )

    layers: tuple[int, ...]
    length: int = 5
    samples: int = 3
    window: int = 7
    overlap: int = 3

    def __post_init__(self):
        layers = layer_tuple('semantic_tokens.layers', self.layers)
        object.__setattr__(self, 'layers', layers)
        check_extent('semantic_tokens.window', self.window)
        check_extent('semantic_tokens.samples', self.samples, self.window)
        check_extent('semantic_tokens.overlap', self.overlap, least=0)
        check_extent('semantic_tokens.length', self.length, least=2)
        for before, after in pairwise(layers):
            if after < before + self.length:
                raise ConfigError(
                    'semantic_tokens.layers must lie at least length '
                    f'({self.length}) apart, but got {layers}'
                )

    @classmethod
    def for_target(
        cls, arch, img_size, reduction_of, target: float, most: float = 1.0
    ) -> 'SemanticTokens':
        """Units of equal length, one after the other from the start, each
        with a block in windows before it."""
        depth = arch.token_depth
        specs = [
            cls(tuple(2 + i * (length + 1) for i in range(count)), length)
            for length in range(depth - 1, 1, -1)
            for count in range(1, depth // (length + 1) + 1)
        ] or [cls((1,), 2)]  # the smallest, or refused with the reason
        if most < 1:
            specs.append(replace(specs[0], layers=()))
        return nearest(specs, reduction_of, target, most)

    def is_empty(self) -> bool:
        return not self.layers

    def place(self, layer: int) -> int | None:
        """Which block of its unit, from 0, block ``layer`` is; None if it is
        in none."""
        for first in self.layers:
            if first <= layer < first + self.length:
                return layer - first
        return None

    def recovers(self, layer: int) -> bool:
        """Whether block ``layer`` brings patches back."""
        return self.place(layer) == self.length - 1

    def parts(self, depth: int) -> dict[str, object]:
        return {
            str(layer - 1): f'block {self.place(layer) + 1} of {self.length}'
            for layer in range(1, depth + 1)
            if self.place(layer) is not None
        }

    def check(self, arch) -> None:
        last = arch.token_depth - self.length + 1
        if self.layers[0] < 1 or self.layers[-1] > last:
            raise ConfigError(
                f'semantic_tokens.layers must lie in 1..{last}, so that units '
                f'of length {self.length} end within the {arch.token_depth} '
                f'blocks of stage 3, but got {self.layers}'
            )

    def clusters(self, grid: Grid) -> tuple[Grid, Grid]:
        """Into how many windows a grid is divided, and how many semantic
        tokens each has, both along height and width."""
        windows = tuple(-(-side // self.window) for side in grid)
        samples = (min(self.samples, n // m) for n, m in zip(grid, windows))
        return windows, tuple(samples)

    def near(self, grid: Grid) -> Grid:
        """How many patches the semantic tokens of one window attend to
        first, along height and width."""
        return tuple(min(self.window + self.overlap, side) for side in grid)

    def count(self, grid: Grid) -> int:
        """Semantic tokens of all windows."""
        windows, samples = self.clusters(grid)
        return prod(windows) * prod(samples)

    def before(self, layer: int, size: Size) -> Size:
        if self.recovers(layer):
            return size._replace(patches=prod(size.grid))
        if self.place(layer) == 0:
            return size._replace(patches=self.count(size.grid))
        return size

    def reach(self, layer: int, grid: Grid) -> Reach | None:
        place, count = self.place(layer), self.count(grid)
        if place is None:
            return None
        if self.recovers(layer):
            return Reach(count, count, count)
        patches, own = prod(grid), prod(self.clusters(grid)[1])
        if place == 0:
            near = prod(self.near(grid))
            return Reach(count + patches, own + near, patches)
        if place == 1:
            return Reach(count + patches, count + patches, patches)
        return Reach(count, own if place % 2 == 0 else count, 0)

    def params(self, layer: int, arch) -> int:
        return 0 if self.place(layer) is None else 2 * arch.token_dim

    def begins(self) -> int:
        return self.layers[0]

    def build(
        self, arch, depth: int, training: bool = False
    ) -> 'SemanticUnits':
        return SemanticUnits(self, arch)


class BranchScales(nn.Module):
    """Layer scales of a block: of what its attention and its MLP add."""

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((2, dim), SCALE))


class SemanticUnits(TokenMethod, nn.ModuleDict):
    """Swaps patches for semantic tokens and back, unit by unit.

    Layer scales are keyed by the index (from 0) of their block. Semantic
    tokens lie window by window.
    """

    def __init__(self, spec: SemanticTokens, arch):
        super().__init__(arch.num_prefix_tokens)
        self.spec = spec
        for name in spec.parts(arch.token_depth):
            self[name] = BranchScales(arch.token_dim)

    def before(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        key = self.spec.key
        if self.spec.recovers(layer):
            patches = state.notes[key]
            state = state.having(undo=state.undo[:-1])
            return patches, state.noting(key, x)
        if self.spec.place(layer) != 0:
            return x, state
        windows, samples = self.spec.clusters(state.grid)
        centres = pool_windows(x.unflatten(1, state.grid), windows, samples)
        places = nearest_centres(state.grid, windows, samples, x.device)
        places = places.expand(x.shape[0], -1)
        # the recovery needs patches as they were
        state = state.recording(Indexed(places)).noting(key, x)
        return centres, state

    def attending(self, layer: int, state: TokenState) -> Attending | None:
        place = self.spec.place(layer)
        if place is None:
            return None
        others, scales = state.notes[self.spec.key], self[str(layer - 1)].gamma
        if self.spec.recovers(layer):
            return Attending(others, False, None, scales)
        if place == 1:
            return Attending(others, True, None, scales)
        windows, samples = self.spec.clusters(state.grid)
        count, size = prod(windows), prod(samples)
        index = torch.arange(count * size, device=others.device)
        index = index.view(count, size)  # own window
        if place == 0:
            near = self.spec.near(state.grid)
            near = around_windows(state.grid, windows, near, others.device)
            index = torch.cat([index, near + count * size], 1)
            return Attending(others, True, index, scales)
        return Attending(None, True, None if place % 2 else index, scales)

    def rejoin(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        if not self.spec.recovers(layer):
            return x, state
        notes = {k: v for k, v in state.notes.items() if k != self.spec.key}
        return x, state.having(notes=notes)


def _bins(side: int, count: int, device) -> Tensor:
    """(count, k): the places along a side that adaptive pooling takes
    together; shorter bins repeat their last one."""
    i = torch.arange(count, device=device)
    first, end = i * side // count, -(-(i + 1) * side // count)
    steps = torch.arange(-(-side // count) + 1, device=device)
    return torch.minimum(first[:, None] + steps, end[:, None] - 1)


def pool_windows(x: Tensor, windows: Grid, samples: Grid) -> Tensor:
    """Semantic tokens (B, n, D) of a grid (B, H, W, D), window by window:
    maxima of parts of equal size, which overlap where they must."""
    for dim, (m, p) in enumerate(zip(windows, samples), 1):
        bins = _bins(x.shape[dim], m * p, x.device)
        x = x.index_select(dim, bins.flatten())
        x = x.unflatten(dim, bins.shape).amax(dim + 1)
    x = x.unflatten(2, (windows[1], -1)).unflatten(1, (windows[0], -1))
    return x.transpose(2, 3).flatten(1, 4)


def nearest_centres(
    grid: Grid, windows: Grid, samples: Grid, device
) -> Tensor:
    """(1, N): the semantic token whose part of the grid each patch lies in."""
    ids = torch.arange(prod(windows) * prod(samples), device=device)
    ids = ids.view(*windows, *samples).transpose(1, 2)
    ids = ids.flatten(2).flatten(0, 1)
    rows, columns = (
        torch.arange(side, device=device) * parts // side
        for side, parts in zip(grid, ids.shape)
    )
    return ids[rows][:, columns].view(1, -1)


def around_windows(grid: Grid, windows: Grid, near: Grid, device) -> Tensor:
    """(windows, K): the patches of and around each window, near[0]·near[1]
    wherever it lies."""
    starts = (
        ((torch.arange(1, 2 * m, 2, device=device) * side - k * m) // (2 * m))
        for side, m, k in zip(grid, windows, near)
    )
    rows, columns = (
        start.clamp(0, side - k)[:, None] + torch.arange(k, device=device)
        for start, side, k in zip(starts, grid, near)
    )
    index = rows[:, None, :, None] * grid[1] + columns[:, None, :]
    return index.flatten(2).flatten(0, 1)
