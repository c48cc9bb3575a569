"""From reduced tokens back to full feature maps."""

from typing import NamedTuple

from torch import Tensor

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.grids import to_map
from mmvitcompress.tokens.state import TokenState, Undo

RESTORE_MODES = ('nearest', 'bilinear')


class TokenMap(NamedTuple):
    """A backbone output that has not been restored yet.

    Attributes:
        tokens: Patch tokens (B, n, C), without prefix tokens.
        state: How they were reduced.
    """

    tokens: Tensor
    state: TokenState


def check_restore_mode(name: str, mode: str) -> None:
    """Raise ConfigError unless merges can be undone by ``mode``."""
    if mode not in RESTORE_MODES:
        raise ConfigError(
            f"{name} must be 'nearest' or 'bilinear', but got {mode!r}"
        )


def restore(
    tokens: Tensor,
    state: TokenState,
    mode: str = 'nearest',
    fill: Tensor | None = None,
) -> Tensor:
    """Full feature map (B, C, H, W) of reduced patch tokens (B, n, C).

    The exact partner of all reductions recorded in ``state``, which are undone
    one after the other, the newest first: dropped patches return to their own
    places, merged ones to all places that they cover.

    Args:
        tokens: Patch tokens (B, n, C), without prefix tokens.
        state: State with which they left the backbone.
        mode: How merges of neighbours are undone: 'nearest' hands each token
            back to all positions that it covers, 'bilinear' interpolates
            between the tokens. Defaults to 'nearest'.
        fill: Token (C) that takes the place of dropped patches
            ("unstructured"). By default they return with the feature that
            they left with ("structured", VTC-LFC).

    Raises:
        ConfigError: If the mode is unknown.
    """
    check_restore_mode('mode', mode)
    return _undo(tokens, state, len(state.undo), mode, fill)


def restore_grid(
    tokens: Tensor, state: TokenState, fill: Tensor | None = None
) -> tuple[Tensor, TokenState]:
    """Undo just so much that tokens lie in a grid again.

    Args:
        tokens: Patch tokens (B, n, C), without prefix tokens.
        state: State with which they left the backbone.
        fill: As of :func:`restore`.

    Returns:
        The map (B, C, h, w), and the state of it: what is left to undo works
        position by position, so that all that does so too may come before.
    """
    count = 0
    for record in state.undo:
        if not getattr(record, 'positionwise', False):
            break
        count += 1
    newer = len(state.undo) - count
    rest = state.having(undo=state.undo[:count])
    return _undo(tokens, state, newer, 'nearest', fill, rest.grid), (
        rest if count else TokenState.start(state.full_grid)
    )


def _undo(
    x: Tensor,
    state: TokenState,
    count: int,
    mode: str,
    fill: Tensor | None,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Undo the ``count`` newest records."""
    records: tuple[Undo, ...] = state.undo[len(state.undo) - count :]
    for record in reversed(records):
        x = record.undo(x, mode, fill)
    return x if x.dim() == 4 else to_map(x, grid or state.full_grid)
