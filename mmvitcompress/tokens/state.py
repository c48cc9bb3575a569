"""Where the tokens of a reduced sequence came from."""

from typing import NamedTuple

from torch import Tensor

from mmvitcompress.tokens.specs import Grid


class TokenState(NamedTuple):
    """All that restoring needs to know; made anew by every reduction.

    Nothing of it is kept on a module, so that a forward pass has no side
    effects. As a named tuple it passes through ``torch.compile``,
    ``torch.export`` and checkpointing like any other tuple.

    Attributes:
        full_grid: Patch grid (H, W) before any reduction.
        grid: Patch grid (h, w) after merging.
        directions: Merges so far, in their order.
        order: (B, h·w), the grid position of each patch in the order of
            decreasing life, or None while patches lie in raster order.
        departed: Features (B, n, D) of the patches that have left, one entry
            for each slimming layer passed.
        lives: Predicted lives (B, h·w) of the patches, in layers, where they
            train (soft slimming), or None.
        places: (B, h·w), the inverse of ``order``: where in it the patch of
            each grid position stands, or None if it was not worked out.
    """

    full_grid: Grid
    grid: Grid
    directions: tuple[str, ...] = ()
    order: Tensor | None = None
    departed: tuple[Tensor, ...] = ()
    lives: Tensor | None = None
    places: Tensor | None = None

    @classmethod
    def start(cls, grid: Grid) -> 'TokenState':
        """The state of an unreduced grid."""
        return cls(full_grid=grid, grid=grid)

    def having(self, **values) -> 'TokenState':
        """A copy with other values.

        As ``_replace``, whose result torch 2.11 cannot hand out of a compiled
        graph; torch 2.7 can't follow ``_asdict``.
        """
        now = dict(zip(TokenState._fields, self))
        return TokenState(**{**now, **values})
