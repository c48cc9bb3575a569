"""How blocks divide their grid into windows."""

from collections.abc import Sequence
from typing import NamedTuple

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.grids import Grid


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

    @property
    def padded(self) -> Grid:
        """The grid, padded to whole windows."""
        return tuple(-(-n // w) * w for n, w in zip(self.grid, self.window))


def quarter_ends(depth: int) -> list[int]:
    """The last blocks of the four quarters of a depth, counted from 0.

    Of fewer than four blocks, some quarters hold none.
    """
    ends = {depth * (i + 1) // 4 - 1 for i in range(4)}
    return sorted(end for end in ends if end >= 0)


def resolve_global_blocks(
    size: int | None, blocks: Sequence[int] | None, depth: int
) -> tuple[int, ...] | None:
    """Which blocks of a plain ViT attend to all tokens, counted from 0.

    Args:
        size: Edge of the other blocks' windows, in tokens; None for global
            attention everywhere.
        blocks: What is asked for; None for the ends of the four quarters of
            the depth.
        depth: Number of blocks.

    Returns:
        None where all of them do.

    Raises:
        ConfigError: If a value is out of range.
    """
    if size is None and blocks is None:
        return None
    if type(size) is not int or size < 1:
        raise ConfigError(
            'window_size must be a positive integer (global_blocks only has '
            f'a meaning beside it), but got {size!r}'
        )
    blocks = quarter_ends(depth) if blocks is None else blocks
    for index in blocks:
        if type(index) is not int or not 0 <= index < depth:
            raise ConfigError(
                f'global_blocks must lie in 0..{depth - 1} (blocks are '
                f'counted from 0 here), but got {index!r}'
            )
    return tuple(blocks)
