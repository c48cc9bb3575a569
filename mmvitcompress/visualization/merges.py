"""Which patches share a token."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.swin import MERGE_STAGE, SwinArch
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.swin import halved
from mmvitcompress.tokens import TokenState, to_map, unmerge
from mmvitcompress.tokens.specs import Grid, merged_grid
from mmvitcompress.visualization.style import (
    ORANGE,
    Figure,
    LineCollection,
    head_columns,
    panels,
    show_photo,
)

CAPTION = (
    'Lines are the borders of tokens; patches inside of the same borders '
    'share one token. Where a token holds patches that touch at a corner '
    'only, as after a diagonal merge, dots and a line join them.'
)


class MergeStage(NamedTuple):
    """What the tokens are between two merges.

    Attributes:
        title: Where it holds, such as ``from block 5`` (the merge takes place
            before that block's attention) or, of a Swin, ``from block 5 of
            stage 3``.
        direction: The merge that it begins with, or None.
        state: Grid and merges so far.
        stride: Edge of a patch, in pixels.
    """

    title: str
    direction: str | None
    state: TokenState
    stride: int


def merge_stages(arch: Arch, img_size: Grid) -> list[MergeStage]:
    """The stages that merging divides a model into.

    Args:
        arch: Of a plain ViT, or of a Swin, whose stage 3 is described.
        img_size: Height and width of the image, in pixels.

    Raises:
        ConfigError: If nothing is merged.
    """
    merging = arch.token_merging
    if merging is None:
        raise ConfigError(
            'the model merges no tokens, so that every patch is one; give a '
            'config or checkpoint with token_merging'
        )
    state, stride = TokenState.start(arch.grid(img_size)), arch.patch_size
    where, start = '', 'patches'
    if isinstance(arch, SwinArch):
        for _ in range(MERGE_STAGE):
            state, stride = halved(state), 2 * stride
        where, start = ' of stage 3', 'start of stage 3'
    stages = [MergeStage(start, None, state, stride)]
    for layer, direction in zip(merging.layers, merging.directions):
        state = state._replace(
            grid=merged_grid(state.grid, direction),
            directions=(*state.directions, direction),
        )
        title = f'from block {layer}{where}'
        stages.append(MergeStage(title, direction, state, stride))
    return stages


def token_map(state: TokenState) -> ndarray:
    """Which token each patch belongs to.

    Args:
        state: Grid and merges; patches that have left are not looked at.

    Returns:
        (H, W) on ``state.full_grid``, places in the merged grid, counted row
        by row.
    """
    height, width = state.grid
    # double precision holds every place exactly
    places = torch.arange(height * width, dtype=torch.float64)
    whole = unmerge(to_map(places.view(1, -1, 1), state.grid), state)
    return whole[0, 0].long().numpy()


def token_sizes(state: TokenState) -> ndarray:
    """How many patches each token covers, (h·w)."""
    count = state.grid[0] * state.grid[1]
    return np.bincount(token_map(state).ravel(), minlength=count)


def borders(tokens: ndarray) -> ndarray:
    """Edges between patches of different tokens, and around all of them.

    Args:
        tokens: (H, W), as of :func:`token_map`.

    Returns:
        Line segments (n, 2, 2): two ends of (x, y) each, in patches.
    """
    framed = np.pad(tokens, 1, constant_values=-1)
    i, j = np.nonzero(framed[1:-1, :-1] != framed[1:-1, 1:])
    upright = np.stack([j, i, j, i + 1], 1)
    i, j = np.nonzero(framed[:-1, 1:-1] != framed[1:, 1:-1])
    level = np.stack([j, i, j + 1, i], 1)
    return np.concatenate([upright, level]).reshape(-1, 2, 2)


def links(tokens: ndarray) -> ndarray:
    """Lines between patches of one token that touch at a corner only.

    Arguments and result are those of :func:`borders`; the ends are the
    patches' centres.
    """
    a, b = tokens[:-1, :-1], tokens[:-1, 1:]
    c, d = tokens[1:, :-1], tokens[1:, 1:]
    i, j = np.nonzero((a == d) & (a != b) & (a != c))
    falling = np.stack([j, i, j + 1, i + 1], 1)
    i, j = np.nonzero((b == c) & (b != a) & (b != d))
    rising = np.stack([j + 1, i, j, i + 1], 1)
    return np.concatenate([falling, rising]).reshape(-1, 2, 2) + 0.5


def draw_merges(
    pictures: Sequence[ndarray], arch: Arch, title: str = ''
) -> Figure:
    """Draw the borders of tokens over pictures: a column for each stage.

    Args:
        pictures: RGB (H, W, 3) of one size, uint8.
        arch: What the tokens are of.
        title: Title. Defaults to one that says what is seen.

    Raises:
        ConfigError: If nothing is merged.
    """
    size = pictures[0].shape[:2]
    stages = merge_stages(arch, size)
    figure, axes = panels(
        len(pictures), len(stages), size[0] / size[1], width=2.6
    )
    for column, stage in enumerate(stages):
        tokens = token_map(stage.state)
        edges, joins = borders(tokens), links(tokens)
        thin = 0.5 if max(tokens.shape) > 40 else 1.0
        for picture, axis in zip(pictures, axes[:, column]):
            show_photo(axis, picture)
            # a dark line under a light one is seen on any picture
            for colour, thick in (('black', 2.2), ('white', 1.0)):
                lines = edges * stage.stride
                axis.add_collection(
                    LineCollection(
                        lines, colors=colour, linewidths=thick * thin
                    )
                )
            for (x0, y0), (x1, y1) in joins * stage.stride:
                axis.plot(
                    *([x0, x1], [y0, y1]),
                    color=ORANGE,
                    linewidth=1.5 * thin,
                    marker='o',
                    markersize=3 * thin,
                )
            axis.set(xlim=(0, size[1]), ylim=(size[0], 0))
    head_columns(axes, [_heading(stage) for stage in stages])
    figure.suptitle(title or 'Patches that share a token', fontsize=11)
    return figure


def _heading(stage: MergeStage) -> str:
    height, width = stage.state.grid
    merge = f' ({stage.direction} merge)' if stage.direction else ''
    return (
        f'{stage.title}{merge}\n{height} × {width} = {height * width} tokens'
    )
