"""Attention in windows of a plain ViT, for large images.

Windows are cut from the grid as it is: after merging they hold as many tokens
as before, which cover a larger part of the image. Prefix tokens stay global:
they attend to all tokens, and every window attends to them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmvitcompress.arch.swin import Windows
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.layers.attend import attend
from mmvitcompress.models.layers.windows import cut, join, to_windows
from mmvitcompress.tokens.specs import Grid

Heads = tuple[Tensor, Tensor, Tensor]


class WindowedBlocks(NamedTuple):
    """Which blocks attend in windows, and in which.

    Attributes:
        size: Edge of a window, in tokens of the block's own grid.
        global_blocks: Blocks that attend to all tokens, counted from 0.
    """

    size: int
    global_blocks: tuple[int, ...]

    @classmethod
    def make(
        cls,
        arch: ViTArch,
        size: int | None,
        global_blocks: Sequence[int] | None,
    ) -> 'WindowedBlocks | None':
        """Check what a config asks for.

        Args:
            arch: What is to be built.
            size: Edge of a window, in tokens; None for global attention
                everywhere, for which the result is None.
            global_blocks: Blocks counted from 0; None for the ends of the four
                quarters of the depth.

        Raises:
            ConfigError: If a value is out of range, or if patches have left
                or are weighted where a block would cut windows.
        """
        if size is None and global_blocks is None:
            return None
        depth = arch.depth
        if type(size) is not int or size < 1:
            raise ConfigError(
                f'window_size must be a positive integer (global_blocks '
                f'only has a meaning beside it), but got {size!r}'
            )
        if global_blocks is None:
            global_blocks = quarter_ends(depth)
        for index in global_blocks:
            if not 0 <= index < depth:
                raise ConfigError(
                    f'global_blocks must lie in 0..{depth - 1} (blocks are '
                    f'counted from 0 here), but got {index}'
                )
        made = cls(size, tuple(global_blocks))
        made._check_slimming(arch)
        return made

    def _check_slimming(self, arch: ViTArch) -> None:
        if arch.patch_slimming is None:
            return
        base = arch.patch_slimming.base_layer  # counted from 1
        for index in range(base, arch.depth):
            if index not in self.global_blocks:
                raise ConfigError(
                    'windows need a whole grid, but patch_slimming sorts the '
                    f'patches after block {base}: name all blocks from '
                    f'{base} on (counted from 0) in global_blocks, or leave '
                    f'window_size away; {index} is missing'
                )

    def at(self, index: int, grid: Grid) -> Windows | None:
        """Windows of block ``index`` on a grid; None for global attention.

        A side that is shorter than a window is one window; if both are, that
        is global attention.
        """
        window = tuple(min(self.size, side) for side in grid)
        if index in self.global_blocks or window == grid:
            return None
        return Windows(grid, window, (0, 0))


def quarter_ends(depth: int) -> list[int]:
    """The last blocks of the four quarters of a depth, counted from 0.

    Of fewer than four blocks, some quarters hold none.
    """
    ends = {depth * (i + 1) // 4 - 1 for i in range(4)}
    return sorted(end for end in ends if end >= 0)


def windowed_attention(
    qkv: Tensor,
    windows: Windows,
    split_heads: Callable[[Tensor], Heads],
    scale: float,
) -> Tensor:
    """Attention of patches within windows, and of prefix tokens to all.

    Args:
        qkv: Projected tokens (B, prefix + h·w, C), prefix tokens first.
        windows: How the grid is cut; it is padded to whole windows, and what
            is padded is attended to by no one.
        split_heads: (B, n, C) → queries and keys (B, heads, n, d) and values
            (B, heads, n, d').
        scale: Softmax scale.

    Returns:
        (B, prefix + h·w, heads · d').
    """
    height, width = windows.grid
    prefix = qkv.shape[1] - height * width
    patches = cut(
        qkv[:, prefix:].unflatten(1, windows.grid), windows, pad_first=True
    )  # (B · windows, N, C)
    count = patches.shape[0] // qkv.shape[0]
    q, k, v = split_heads(patches)
    if prefix:
        first, *shared = split_heads(qkv[:, :prefix])
        k, v = (
            torch.cat([x.repeat_interleave(count, 0), own], 2)
            for x, own in zip(shared, (k, v))
        )
    mask = _real(windows, prefix, qkv.device)
    if mask is not None:
        mask = mask.repeat(qkv.shape[0], 1)[:, None, None]
    x = attend(q, k, v, mask, scale)
    x = join(x.transpose(1, 2).flatten(2), windows, pad_first=True)
    x = x.flatten(1, 2)  # (B, h·w, heads · d')
    if prefix:
        _, k, v = split_heads(qkv)
        first = attend(first, k, v, scale=scale)
        x = torch.cat([first.transpose(1, 2).flatten(2), x], 1)
    return x


def _real(windows: Windows, prefix: int, device) -> Tensor | None:
    """(windows, prefix + N), which keys aren't padding; None if all are."""
    if windows.padded == windows.grid:
        return None
    rows, columns = (
        torch.arange(padded, device=device) < side
        for padded, side in zip(windows.padded, windows.grid)
    )
    real = (rows[:, None] & columns)[None, ..., None]
    real = to_windows(real, windows.window).squeeze(2)
    return F.pad(real, (prefix, 0), value=True)
