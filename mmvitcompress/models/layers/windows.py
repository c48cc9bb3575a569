"""Windows of a token grid: cutting, shifting, and who sees whom.

What depends on the grid alone (positions, masks) is worked out once for each
grid and kept, except while a graph is being recorded.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmvitcompress.arch.windows import Windows
from mmvitcompress.tokens.grids import Grid

CACHE_SIZE = 64
"""Layouts kept at a time; a grid has at most two for each stage and merge."""

FAR = -100.0
"""What is added to the logits of tokens that are no neighbours (as timm)."""


class WindowLayout(NamedTuple):
    """How attention runs in the windows of one block: see
    :func:`position_index` and :func:`shift_mask`."""

    windows: Windows
    index: Tensor
    mask: Tensor | None


def to_windows(x: Tensor, window: Grid) -> Tensor:
    """(B, H, W, D) → (B · windows, h · w, D); windows divide the grid."""
    h, w = window
    x = x.unflatten(2, (-1, w)).unflatten(1, (-1, h))
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def from_windows(x: Tensor, window: Grid, grid: Grid) -> Tensor:
    """The inverse of :func:`to_windows`: → (B, h, w, D), grid (h, w)."""
    counts = [n // w for n, w in zip(grid, window)]
    x = x.unflatten(1, window).unflatten(0, (-1, *counts))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def cut(x: Tensor, windows: Windows, pad_first: bool) -> Tensor:
    """Shift and pad (B, H, W, D), and cut it into (B · windows, N, D)."""
    if pad_first:
        x = _shift(_pad(x, windows), windows, -1)
    else:
        x = _pad(_shift(x, windows, -1), windows)
    return to_windows(x, windows.window)


def join(x: Tensor, windows: Windows, pad_first: bool) -> Tensor:
    """The inverse of :func:`cut`: → (B, H, W, D)."""
    x = from_windows(x, windows.window, windows.padded())
    if pad_first:
        return _crop(_shift(x, windows, 1), windows)
    return _shift(_crop(x, windows), windows, 1)


def _shift(x: Tensor, windows: Windows, sign: int) -> Tensor:
    if not any(windows.shift):
        return x
    return x.roll([sign * shift for shift in windows.shift], (1, 2))


def _pad(x: Tensor, windows: Windows) -> Tensor:
    if windows.padded() == windows.grid:
        return x
    pad_h, pad_w = (p - n for p, n in zip(windows.padded(), windows.grid))
    return F.pad(x, (0, 0, 0, pad_w, 0, pad_h))


def _crop(x: Tensor, windows: Windows) -> Tensor:
    height, width = windows.grid
    return x[:, :height, :width]


def position_index(window: Grid, size: int, device=None) -> Tensor:
    """(N, N) rows of the position bias table of (2·size − 1)² offsets.

    A window that has shrunk uses the offsets that it still has, so that a
    pretrained table stays as it is.

    Args:
        window: Window (h, w), neither side longer than ``size``.
        size: Edge of the window that the table is made for.
        device: Where to put the result.
    """
    rows, columns = (torch.arange(n, device=device) for n in window)
    rows = (rows[:, None] - rows + size - 1) * (2 * size - 1)  # (h, h)
    columns = columns[:, None] - columns + size - 1  # (w, w)
    # query (i, j), key (k, l): rows[i, k] + columns[j, l]
    index = rows[:, None, :, None] + columns[None, :, None, :]
    return index.flatten(2).flatten(0, 1)


def shift_mask(windows: Windows, device=None) -> Tensor | None:
    """(windows, N, N), 0 for tokens that lie together and -100 for those that
    only a cyclic shift brought together; None without a shift."""
    if not any(windows.shift):
        return None
    regions = []
    for length, shift in zip(windows.padded(), windows.shift):
        # along a side without a shift all tokens lie before its end
        start = length - shift if shift else length
        position = torch.arange(length, device=device)
        regions.append((position >= start).int())
    region = 2 * regions[0][:, None] + regions[1]  # (H, W)
    region = to_windows(region[None, ..., None], windows.window).squeeze(2)
    apart = region[:, :, None] != region[:, None, :]
    return FAR * apart.float()


class LayoutCache:
    """Layouts by grid, for one window size."""

    def __init__(self, size: int):
        self.size = size
        self._layouts: dict[tuple, WindowLayout] = {}

    def get(self, windows: Windows, device: torch.device) -> WindowLayout:
        """The layout of a block that divides its grid into ``windows``."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self._make(windows, device)
        key = (windows, device)
        if key not in self._layouts:
            # training may follow: what inference mode makes can't be used
            with torch.inference_mode(False):
                layout = self._make(windows, device)
            if type(layout.index) is not Tensor:  # of a mode that fakes them
                return layout
            if len(self._layouts) >= CACHE_SIZE:
                self._layouts.clear()
            self._layouts[key] = layout
        return self._layouts[key]

    def _make(self, windows: Windows, device: torch.device) -> WindowLayout:
        index = position_index(windows.window, self.size, device)
        return WindowLayout(windows, index, shift_mask(windows, device))
