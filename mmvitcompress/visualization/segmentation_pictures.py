"""Drawing label maps beside each other."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy import ndarray

from mmvitcompress.visualization.segmentation import (
    Comparison,
    differences,
    most_frequent,
)
from mmvitcompress.visualization.style import (
    BLACK,
    BLUE,
    PALE,
    SERIES,
    VERMILLION,
    Axes,
    Figure,
    ListedColormap,
    Patch,
    class_colours,
    head_columns,
)

CAPTION = (
    'Images, truth and predictions, and where the two models differ; below, '
    'the IoU of each class over all images evaluated.'
)
BARS = 24
"""Classes that get bars at most; the most frequent ones."""


def draw_comparison(comparison: Comparison, title: str = '') -> Figure:
    """Draw images, truth, two models' predictions, and their differences.

    Args:
        comparison: Of two models, from
            :func:`~mmvitcompress.visualization.segmentation.compare_segmentors`;
            of one, there is no column of differences.
        title: Title. Defaults to one that says what is seen.
    """
    names = list(comparison.predictions)
    two = len(names) == 2
    rows, columns = len(comparison.pictures), 2 + len(names) + two
    labels = most_frequent(comparison.pixels, BARS)
    aspect = comparison.pictures[0].shape[0] / comparison.pictures[0].shape[1]
    height = (2.1 * aspect * rows + 0.6, 2.6)
    figure = Figure(
        figsize=(2.1 * columns, sum(height) + 0.5), layout='constrained'
    )
    upper, lower = figure.subfigures(2, 1, height_ratios=height)
    axes = upper.subplots(rows, columns, squeeze=False)
    maps = {'truth': comparison.truths}
    for name in names:
        heading = f'{name}\n{100 * comparison.mean_iou(name):.1f} % mIoU'
        maps[heading] = comparison.predictions[name]
    _fill(axes, comparison.pictures, maps, comparison.classes)
    handles = []
    if two:
        handles = _draw_differences(axes[:, -1], comparison, names)
    seen = {
        int(label)
        for each in (comparison.truths, *comparison.predictions.values())
        for labels_of in each
        for label in np.unique(labels_of)
        if label < len(comparison.classes)
    }
    upper.legend(
        handles=_legend(comparison.classes, sorted(seen)),
        loc='outside lower left',
        ncols=5,
        fontsize=8,
    )
    if two:
        upper.legend(
            handles=handles,
            title='where they differ',
            title_fontsize=8,
            loc='outside lower right',
            ncols=2,
            fontsize=8,
        )
    _draw_ious(lower.subplots(), comparison, labels)
    figure.suptitle(title or 'Segmentations compared', fontsize=11)
    return figure


def _fill(
    axes: ndarray,
    images: Sequence[ndarray],
    label_maps: Mapping[str, Sequence[ndarray]],
    classes: Sequence[str],
) -> None:
    palette = class_colours(len(classes))
    palette = palette.with_extremes(over=PALE)  # ignored
    for row, image in enumerate(images):
        axes[row][0].imshow(image)
        for column, maps in enumerate(label_maps.values(), 1):
            axes[row][column].imshow(
                maps[row],
                cmap=palette,
                vmin=0,
                vmax=len(classes) - 1,
                interpolation='nearest',
            )
    head_columns(axes, ['image', *label_maps])
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])


def _legend(classes: Sequence[str], labels: Sequence[int]) -> list[Patch]:
    palette = class_colours(len(classes))
    return [
        Patch(facecolor=palette(i), edgecolor='black', label=classes[i])
        for i in labels
    ]


def _draw_differences(
    axes: Sequence[Axes], comparison: Comparison, names: Sequence[str]
) -> list[Patch]:
    """Fill the last column; returns what explains its colours."""
    meanings = {
        'both right': PALE,
        f'only {names[0]} right': VERMILLION,
        f'only {names[1]} right': BLUE,
        'neither right': BLACK,
    }
    palette = ListedColormap(list(meanings.values()))
    palette = palette.with_extremes(under='white')  # ignored
    first, second = (comparison.predictions[name] for name in names)
    for axis, *maps in zip(axes, comparison.truths, first, second):
        axis.imshow(
            differences(*maps, len(comparison.classes)),
            cmap=palette,
            vmin=0,
            vmax=3,
            interpolation='nearest',
        )
    axes[0].set_title('where they differ', fontsize=9)
    return [
        Patch(facecolor=colour, edgecolor='black', label=meaning)
        for meaning, colour in meanings.items()
    ]


def _draw_ious(
    axis: Axes, comparison: Comparison, labels: Sequence[int]
) -> None:
    width = 0.8 / len(comparison.ious)
    places = np.arange(len(labels))
    for index, (name, ious) in enumerate(comparison.ious.items()):
        offset = (index - (len(comparison.ious) - 1) / 2) * width
        mean = 100 * comparison.mean_iou(name)
        bars = axis.bar(
            places + offset,
            100 * ious[list(labels)],
            width=0.92 * width,
            color=(VERMILLION, BLUE, *SERIES[2:])[index],
            label=f'{name}: {mean:.1f} % mIoU',
        )
        if len(labels) <= 12:
            axis.bar_label(bars, fmt='%.1f', fontsize=7, padding=1)
    left_out = np.count_nonzero(comparison.pixels) - len(labels)
    more = f'; {left_out} rarer classes not shown' if left_out else ''
    axis.set(
        ylim=(0, 105),
        yticks=range(0, 101, 25),
        ylabel='IoU (%)',
        xlabel=f'{comparison.images} validation images{more}',
    )
    names = [comparison.classes[label] for label in labels]
    turned = dict(rotation=30, ha='right') if len(labels) > 8 else {}
    axis.set_xticks(places, names, fontsize=8, **turned)
    axis.legend(fontsize=8, ncols=2, loc='lower right', bbox_to_anchor=(1, 1))
    for side in ('top', 'right'):
        axis.spines[side].set_visible(False)
