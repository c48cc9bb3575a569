"""How blocks divide their grid into windows."""

from collections.abc import Sequence
from typing import NamedTuple

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.grids import Grid
from mmvitcompress.utils.checks import check_extent


class Windows(NamedTuple):
    """How one block divides its grid.

    Attributes:
        grid: Token grid (H, W).
        window: Window (h, w), in tokens.
        shift: By how many tokens windows are shifted down and right.
    """

    grid: Grid
    window: Grid
    shift: Grid

    # no property, whose tuple torch 2.7 can't follow
    def padded(self) -> Grid:
        """The grid, padded to whole windows."""
        return tuple(-(-n // w) * w for n, w in zip(self.grid, self.window))


def quarter_ends(depth: int) -> tuple[int, ...]:
    """The last blocks of the four quarters of a depth, counted from 0.

    Of fewer than four blocks, some quarters hold none.
    """
    ends = {depth * (i + 1) // 4 - 1 for i in range(4)}
    return tuple(sorted(end for end in ends if end >= 0))


def check_windows(
    size: int | None,
    global_blocks: Sequence[int],
    depth: int,
    last: tuple[int, str] | None,
) -> None:
    """Raise ConfigError unless blocks of a plain ViT can have windows.

    Args:
        size: Edge of the windows, in tokens.
        global_blocks: Blocks without windows, counted from 0.
        depth: Number of blocks.
        last: The last block that meets a whole grid, and the token method
            that leaves none; None if all blocks do.
    """
    if size is None:
        raise ConfigError(
            f'global_blocks only has a meaning beside window_size: give one, '
            f'or leave it out, but got {global_blocks!r}'
        )
    check_extent('window_size', size)
    for index in global_blocks:
        if type(index) is not int or not 0 <= index < depth:
            raise ConfigError(
                f'global_blocks must lie in 0..{depth - 1} (blocks are '
                f'counted from 0 here), but got {index!r}'
            )
    for index in range(last[0], depth) if last else ():
        if index not in global_blocks:
            raise ConfigError(
                f'windows need a whole grid, but {last[1]} leaves none after '
                f'block {last[0]}: name all blocks from {last[0]} on (counted '
                'from 0) in global_blocks, or leave window_size out; '
                f'{index} is missing'
            )
