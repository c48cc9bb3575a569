"""What a checkpoint's channels have come to (CAIT, Fig. 6 and 7)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmvitcompress.channels import (
    column_norms,
    find_compactors,
    kept_channels,
)
from mmvitcompress.channels.constraints import Constraints
from mmvitcompress.checkpoints.widths import (
    HeadChannels,
    Widths,
    read_heads,
    read_widths,
    widths_of,
)
from mmvitcompress.errors import ConfigError
from mmvitcompress.visualization import base, style

_EDGE = '#777777'
_SHARES = {'Q/K': style.BLUE, 'V': style.ORANGE, 'MLP': style.GREEN}
_FATES = {
    'kept': ('kept', style.BLUE),
    'stuck': ('zero, but has to stay', style.VERMILLION),
    'removed': ('zero and removed', style.PALE),
}


def draw_channels(models: Mapping[str, Widths]) -> style.Figure:
    """Draw the kept share of channels per block and kind (CAIT, Fig. 6).

    Args:
        models: Widths under the models' names; a row for each.
    """
    blocks = max(len(widths.kept) for widths in models.values())
    size = (max(6, 0.8 * blocks + 1), 2.1 * len(models) + 0.9)
    figure = style.Figure(figsize=size, layout='constrained')
    axes = figure.subplots(len(models), 1, squeeze=False)[:, 0]
    for axis, (name, widths) in zip(axes, models.items()):
        places = np.arange(1, len(widths.kept) + 1)
        for kind, (label, colour) in enumerate(_SHARES.items()):
            shares = 100 * widths.shares[:, kind]
            where = places + 0.28 * (kind - 1)
            bars = axis.bar(where, shares, 0.26, color=colour, label=label)
            axis.bar_label(
                bars,
                [f'{kept:g}' for kept in widths.kept[:, kind].round(1)],
                fontsize=7,
                rotation=90,
                padding=2,
                bbox=dict(facecolor='white', edgecolor='none', pad=0.6),
            )
        axis.axhline(100, color='black', linewidth=0.8, linestyle=':')
        _frame(axis, len(places), 130)
        axis.set(ylabel='channels kept (%)', yticks=range(0, 101, 25))
        axis.set_title(name, fontsize=9, loc='left')
    axes[-1].set_xlabel('block')
    legend = axes[0].get_legend_handles_labels()
    figure.legend(*legend, loc='outside upper right', ncols=3, fontsize=8)
    title = 'Channels that each block keeps'
    figure.suptitle(title, fontsize=11, x=0.02, ha='left')
    return figure


def draw_heads(
    models: Mapping[str, Mapping[str, HeadChannels]],
) -> style.Figure:
    """Draw what became of the channels of each head (CAIT, Fig. 7).

    Args:
        models: For each model its name and what :func:`read_heads` returns;
            a column for each.
    """
    kinds = list(next(iter(models.values())))
    size = (5.2 * len(models) + 0.4, 1.7 * len(kinds) + 1.1)
    figure = style.Figure(figsize=size, layout='constrained')
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
    fates = [
        style.swatch(colour, label, _EDGE) for label, colour in _FATES.values()
    ]
    figure.legend(
        handles=fates, loc='outside lower center', ncols=3, fontsize=8
    )
    title = 'Channels near zero, and which of them can go'
    figure.suptitle(title, fontsize=11)
    return figure


def _stack(axis: style.Axes, channels: HeadChannels) -> None:
    blocks, heads = channels.kept.shape
    width = 0.84 / heads
    heads_at = (np.arange(heads) - (heads - 1) / 2) * width
    places = (np.arange(1, blocks + 1)[:, None] + heads_at).ravel()
    bottom = np.zeros(blocks * heads)
    look = dict(width=width * 0.9, edgecolor=_EDGE, linewidth=0.3)
    for fate, (_, colour) in _FATES.items():
        height = getattr(channels, fate).ravel()
        axis.bar(places, height, bottom=bottom, color=colour, **look)
        bottom = bottom + height
    _frame(axis, blocks, bottom.max())


def _frame(axis: style.Axes, blocks: int, top: float) -> None:
    axis.set(xticks=range(1, blocks + 1), xlim=(0.4, blocks + 0.6))
    axis.set_ylim(0, top)
    axis.tick_params(labelsize=8)
    style.bare(axis)


def name_all(
    paths: Sequence[str], names: Sequence[str] | None = None
) -> list[str]:
    """A name for each file: what the user calls them, or else their folders
    and names, as short as they can be told apart.

    Raises:
        ConfigError: If names are missing or used twice.
    """
    for parts in (1, 2, 3):
        if names is None:
            found = ['/'.join(Path(path).parts[-parts:]) for path in paths]
            names = found if len(set(found)) == len(paths) else None
    names = paths if names is None else names
    if len(names) != len(paths) or len(set(names)) != len(names):
        raise ConfigError(
            f'names must be given for each of {len(paths)} files, all '
            f'different, but got {list(names)}'
        )
    return list(names)


class Channels(base.ModelKind):
    """What each block keeps, or what became of the channels of each head."""

    about = (
        'what each block keeps, or what became of the channels of each head'
    )
    caption = (
        'By block: what share of its channels each block keeps; the number '
        'over a bar is the width that is left (of each head for Q/K and V). '
        '100 % is the dense model. By head: every bar is one head, how many '
        'of its channels are kept, how many the run has brought to zero, and '
        'which of those can be removed. All heads of a block need one width, '
        'and Q and K the same positions; without the consistencies zeros '
        'stay behind that cost time all the same.'
    )
    has_numbers = True
    arguments: ClassVar = {
        'checkpoints': dict(
            nargs='+',
            metavar='CHECKPOINT',
            help='what a pruning run or tools/export_pruned.py has written',
        ),
        '--names': dict(**base.WORDS, help='what to call them'),
        '--by': dict(
            choices=['block', 'head'],
            default='block',
            help='head: also what is zero and cannot go; of pruning runs only',
        ),
    }

    def view(self, checkpoints, names=None, by: str = 'block') -> base.View:
        """Read the checkpoints, under their names if there are any."""
        names = name_all(checkpoints, names)
        read, draw = {
            'block': (read_widths, draw_channels),
            'head': (read_heads, draw_heads),
        }[by]
        models = {name: read(path) for name, path in zip(names, checkpoints)}
        numbers = {
            name: {k: v.tolist() for k, v in each._asdict().items()}
            if by == 'block'
            else {
                kind: {k: int(v.sum()) for k, v in one._asdict().items()}
                for kind, one in each.items()
            }
            for name, each in models.items()
        }
        return base.View(lambda rows: draw(models), numbers=numbers)

    def shows(self, backbone) -> bool:
        """Tell whether channels are being pruned."""
        return bool(find_compactors(backbone))

    def compute(self, models) -> tuple:
        """Read the masks of the moment."""
        found = {}
        for name, (backbone, _) in models.items():
            each = find_compactors(backbone)
            found[f'masks of {name}'] = widths_of(
                kept_channels(each),
                column_norms(each),
                Constraints.of(backbone.arch),
            )
        return (found,)

    def look(self, models, pictures) -> base.View:
        """Draw the masks of the moment, whatever the pictures."""
        drawn = self.compute(models)
        return base.View(lambda rows: draw_channels(*drawn))
