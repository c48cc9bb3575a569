"""``TokenState``: what became of the tokens, which ``restore`` undoes."""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mmvitcompress.tokens.grids import Grid


class Undo(Protocol):
    """A record of what one method did to the tokens, able to undo it.

    Records are named tuples of tensors and plain values, so that states pass
    through ``torch.compile``, ``torch.export`` and checkpointing.
    """

    def undo(self, x: Tensor, mode: str, fill: Tensor | None) -> Tensor:
        """Give back the tokens (B, m, C) that there were before, or their map
        (B, C, h, w), of (B, n, C).

        ``mode`` and ``fill`` are those of
        :func:`~mmvitcompress.tokens.restore.restore`.
        """
        ...

    def apply(self, function) -> 'Undo':
        """Apply a function of tokens (B, n, D) to features that it keeps."""
        ...


class Indexed(NamedTuple):
    """Each of the tokens before is part of one of those after.

    What matching (ToMe) and fusing (EViT) leave behind.
    """

    index: Tensor  # (B, m), for each token before the place of its token now

    def undo(self, x: Tensor, mode: str, fill: Tensor | None) -> Tensor:
        return take(x, self.index)

    def apply(self, function) -> 'Indexed':
        return self


class Dropped(NamedTuple):
    """Some tokens have left, and return with the features they left with."""

    places: Tensor  # (B, m), of each token before among those left, then gone
    gone: Tensor  # (B, m - n, C)

    def undo(self, x: Tensor, mode: str, fill: Tensor | None) -> Tensor:
        gone = self.gone
        if fill is not None:
            gone = fill.to(x.dtype).expand(*gone.shape[:2], -1)
        return take(torch.cat([x, gone], 1), self.places)

    def apply(self, function) -> 'Dropped':
        return Dropped(self.places, function(self.gone))


class TokenState(NamedTuple):
    """All that restoring needs to know; made anew by every reduction.

    Nothing of it is kept on a module: a forward pass has no side effects.

    Attributes:
        full_grid: Patch grid (H, W) before any reduction.
        grid: Patch grid (h, w) after merges of neighbours; the last one where
            tokens no longer lie in a grid.
        undo: Records of what was done, newest last; see :class:`Undo`.
        notes: What methods note for themselves while blocks run, by their
            keys, such as how many patches each token stands for.
        tables: What a net worked out of all this for its blocks; None once
            anything has changed.
    """

    full_grid: Grid
    grid: Grid
    undo: tuple[Undo, ...] = ()
    notes: dict[str, Any] = {}  # noqa: RUF012, never written to
    tables: Any = None

    @classmethod
    def start(cls, grid: Grid) -> 'TokenState':
        """The state of an unreduced grid."""
        return cls(full_grid=grid, grid=grid)

    def having(self, **values) -> 'TokenState':
        """A copy with other values, and without the tables of the old ones.

        As ``_replace``, whose result torch 2.11 cannot hand out of a compiled
        graph; torch 2.7 can't follow ``_asdict``.
        """
        now = dict(zip(TokenState._fields, self))
        return TokenState(**{**now, 'tables': None, **values})

    def noting(self, key: str, value: Any) -> 'TokenState':
        """A copy with a note of the method ``key``; tokens stay where they
        are."""
        notes = {**self.notes, key: value}
        return self.having(notes=notes, tables=self.tables)

    def newest(self, kind: type) -> Any | None:
        """The newest record, if it is of a kind: what may be extended."""
        if self.undo and isinstance(self.undo[-1], kind):
            return self.undo[-1]
        return None

    def recording(self, record: Undo, extends: Undo | None = None):
        """A copy with one more record, or with the newest one extended."""
        kept = self.undo[:-1] if extends is not None else self.undo
        return self.having(undo=(*kept, record))

    def reindexed(self, index: Tensor) -> 'TokenState':
        """A copy that records where tokens went; see :class:`Indexed`."""
        last = self.newest(Indexed)
        if last is not None:
            index = index.gather(1, last.index)
        return self.recording(Indexed(index), last)

    def apply(self, function) -> 'TokenState':
        """A copy in which kept features went through a function as well."""
        return self.having(undo=tuple(u.apply(function) for u in self.undo))


def take(x: Tensor, index: Tensor) -> Tensor:
    """Tokens (B, k, D) of ``x`` (B, n, D) at ``index`` (B, k).

    As ``gather`` would, but whole rows at a time, which is many times faster
    on a CPU.
    """
    start = torch.arange(x.shape[0], device=x.device)[:, None] * x.shape[1]
    rows = x.flatten(0, 1).index_select(0, (index + start).flatten())
    return rows.unflatten(0, index.shape)


def fused_places(stay: Tensor, total: int) -> Tensor:
    """(B, total): where each of ``total`` tokens is once those at ``stay``
    (B, k) come first, in that order, and all others are one token."""
    batch, kept = stay.shape
    places = torch.arange(kept, device=stay.device).expand_as(stay)
    return stay.new_full((batch, total), kept).scatter(1, stay, places)


def drop_lowest(
    x: Tensor,
    scores: Tensor,
    kept: int,
    state: TokenState,
    num_prefix: int,
) -> tuple[Tensor, TokenState]:
    """Keep the ``kept`` patches of (B, num_prefix + n, D) with the highest
    scores (B, n), in their order; of equal ones the first.

    Scores decide, and have no gradient.
    """
    parts = split_lowest(scores, kept)
    stay, leave = (take(x[:, num_prefix:], part) for part in parts)
    record = Dropped(torch.cat(parts, 1).argsort(1), leave)
    return torch.cat([x[:, :num_prefix], stay], 1), state.recording(record)


def split_lowest(scores: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Places (B, kept) of the highest scores (B, n), and (B, n - kept) of the
    others, both ascending; of equal ones the first are kept."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    # in the order they had: what is near in memory was near in the image
    return order[:, :kept].sort(1).values, order[:, kept:].sort(1).values
