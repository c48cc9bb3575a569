"""Drawing what a checkpoint's channels have come to."""

from collections.abc import Mapping

import numpy as np

from mmvitcompress.visualization.channels import HeadChannels, Widths
from mmvitcompress.visualization.style import (
    BLUE,
    GREEN,
    ORANGE,
    PALE,
    VERMILLION,
    Axes,
    Figure,
    Patch,
)

SHARES_CAPTION = (
    'What share of its channels each block keeps; the number over a bar is '
    'the width that is left (of each head for Q/K and V). 100 % is the dense '
    'model.'
)
HEADS_CAPTION = (
    'Every bar is one head: how many of its channels are kept, how many the '
    'run has brought to zero, and which of those can be removed. All heads '
    'of a block need one width, and Q and K the same positions; without the '
    'consistencies zeros stay behind that cost time all the same.'
)
_EDGE = '#777777'
_SHARES = {'Q/K': BLUE, 'V': ORANGE, 'MLP': GREEN}
_FATES = {
    'kept': ('kept', BLUE),
    'stuck': ('zero, but has to stay', VERMILLION),
    'removed': ('zero and removed', PALE),
}


def draw_channels(models: Mapping[str, Widths], title: str = '') -> Figure:
    """Draw the kept share of channels per block and kind (CAIT, Fig. 6).

    Args:
        models: Widths under the models' names; a row for each.
        title: Title. Defaults to one that says what is seen.
    """
    blocks = max(len(widths.kept) for widths in models.values())
    figure = Figure(
        figsize=(max(6, 0.8 * blocks + 1), 2.1 * len(models) + 0.9),
        layout='constrained',
    )
    axes = figure.subplots(len(models), 1, squeeze=False)[:, 0]
    for axis, (name, widths) in zip(axes, models.items()):
        places = np.arange(1, len(widths.kept) + 1)
        for kind, (label, colour) in enumerate(_SHARES.items()):
            offset = 0.28 * (kind - 1)
            bars = axis.bar(
                places + offset,
                100 * widths.shares[:, kind],
                width=0.26,
                color=colour,
                label=label,
            )
            axis.bar_label(
                bars,
                [str(width) for width in widths.kept[:, kind]],
                fontsize=7,
                rotation=90,
                padding=2,
                bbox=dict(facecolor='white', edgecolor='none', pad=0.6),
            )
        axis.axhline(100, color='black', linewidth=0.8, linestyle=':')
        _label(axis, places, 'channels kept (%)', 130, range(0, 101, 25))
        axis.set_title(name, fontsize=9, loc='left')
    axes[-1].set_xlabel('block')
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc='outside upper right',
        ncols=3,
        fontsize=8,
    )
    figure.suptitle(
        title or 'Channels that each block keeps',
        fontsize=11,
        x=0.02,
        ha='left',
    )
    return figure


def draw_heads(
    models: Mapping[str, Mapping[str, HeadChannels]], title: str = ''
) -> Figure:
    """Draw what became of the channels of each head (CAIT, Fig. 7).

    Args:
        models: For each model its name and what
            :func:`~mmvitcompress.visualization.channels.read_heads` returns;
            a column for each.
        title: Title. Defaults to one that says what is seen.
    """
    kinds = list(next(iter(models.values())))
    figure = Figure(
        figsize=(5.2 * len(models) + 0.4, 1.7 * len(kinds) + 1.1),
        layout='constrained',
    )
    axes = figure.subplots(len(kinds), len(models), squeeze=False, sharey=True)
    for column, (name, channels) in enumerate(models.items()):
        removed = sum(each.removed.sum() for each in channels.values())
        stuck = sum(each.stuck.sum() for each in channels.values())
        every = sum(sum(each).sum() for each in channels.values())
        axes[0][column].set_title(
            f'{name}\n{removed + stuck} of {every} channels are zero, '
            f'{removed} of them removed ({stuck} have to stay)',
            fontsize=9,
        )
        for axis, kind in zip(axes[:, column], kinds):
            _stack(axis, channels[kind])
    for row, kind in enumerate(kinds):
        axes[row][0].set_ylabel(f'{kind.upper()} channels\nin each head')
    for axis in axes[-1]:
        axis.set_xlabel('block (one bar for each head)')
    figure.legend(
        handles=[
            Patch(facecolor=colour, edgecolor=_EDGE, label=label)
            for label, colour in _FATES.values()
        ],
        loc='outside lower center',
        ncols=3,
        fontsize=8,
    )
    figure.suptitle(
        title or 'Channels near zero, and which of them can go', fontsize=11
    )
    return figure


def _stack(axis: Axes, channels: HeadChannels) -> None:
    blocks, heads = channels.kept.shape
    width = 0.84 / heads
    heads_at = (np.arange(heads) - (heads - 1) / 2) * width
    places = (np.arange(1, blocks + 1)[:, None] + heads_at).ravel()
    bottom = np.zeros(blocks * heads)
    for fate, (_, colour) in _FATES.items():
        height = getattr(channels, fate).ravel()
        axis.bar(
            places,
            height,
            bottom=bottom,
            width=width * 0.9,
            color=colour,
            edgecolor=_EDGE,
            linewidth=0.3,
        )
        bottom = bottom + height
    _label(axis, np.arange(1, blocks + 1), None, bottom.max(), None)


def _label(axis: Axes, places, label, top: float, ticks) -> None:
    axis.set(xticks=places, xlim=(0.4, len(places) + 0.6), ylim=(0, top))
    if ticks is not None:
        axis.set_yticks(list(ticks))
    if label:
        axis.set_ylabel(label)
    axis.tick_params(labelsize=8)
    for side in ('top', 'right'):
        axis.spines[side].set_visible(False)
