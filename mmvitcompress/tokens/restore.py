"""From reduced tokens back to full feature maps; which patches each covers."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from mmvitcompress.tokens.grids import GridMerge, to_map
from mmvitcompress.tokens.state import TokenState
from mmvitcompress.utils.checks import check_choice

RestoreMode = Literal['nearest', 'bilinear']


class TokenMap(NamedTuple):
    """A backbone output that has not been restored yet."""

    tokens: Tensor  # patch tokens (B, n, C), without prefix tokens
    state: TokenState  # how they were reduced


def check_restore_mode(name: str, mode: str) -> None:
    """Raise ConfigError unless merges can be undone by ``mode``."""
    check_choice(name, mode, get_args(RestoreMode))


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
        tokens: Without prefix tokens.
        state: With which they left the backbone.
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
    x = _undo(tokens, state, 0, mode, fill)
    return x if x.dim() == 4 else to_map(x, state.full_grid)


def restore_grid(
    tokens: Tensor, state: TokenState, fill: Tensor | None = None
) -> tuple[Tensor, TokenState]:
    """Undo just so much that tokens lie in a grid again.

    Arguments are those of :func:`restore`.

    Returns:
        The map (B, C, h, w), and the state of it: what is left to undo works
        position by position, so that all that does so too may come before.
    """
    count = 0
    for record in state.undo:
        if not getattr(record, 'positionwise', False):
            break
        count += 1
    rest = state.having(undo=state.undo[:count])
    x = _undo(tokens, state, count, 'nearest', fill)
    if not count:
        rest = TokenState.start(state.full_grid)
    return x if x.dim() == 4 else to_map(x, rest.grid), rest


def _undo(
    x: Tensor, state: TokenState, kept: int, mode: str, fill: Tensor | None
) -> Tensor:
    """Undo all but the ``kept`` oldest records."""
    for record in reversed(state.undo[kept:]):
        x = record.undo(x, mode, fill)
    return x


@torch.no_grad()
def covering(state: TokenState, batch: int, count: int, device) -> Tensor:
    """(B, N): which of ``count`` tokens covers each patch of the full grid.

    ``count`` itself stands where none does: there a patch has left.
    """
    ids = torch.arange(count, dtype=torch.float, device=device)
    ids = ids.expand(batch, -1)[..., None]
    state = state.apply(lambda x: ids.new_full((*x.shape[:2], 1), count))
    for record in reversed(state.undo):
        if isinstance(record, GridMerge):
            ids = ids.index_select(1, record.tokens(device))
        else:
            ids = record.undo(ids, 'nearest', None)
    return ids.squeeze(2).long()


def covered_means(patches: Tensor, index: Tensor, count: int) -> Tensor:
    """Means (B, n, D) of the patches (B, N, D) that each token covers.

    ``index`` is that of :func:`covering`.
    """
    batch = patches.shape[0]  # a symbol, maybe, which len() would fix
    sums = patches.new_zeros(batch, count + 1, patches.shape[-1])
    sums.scatter_add_(1, index[..., None].expand_as(patches), patches)
    sizes = patches.new_zeros(batch, count + 1)
    sizes.scatter_add_(1, index, torch.ones_like(index, dtype=sizes.dtype))
    return (sums / sizes.clamp(min=1)[..., None])[:, :count]
