"""Pictures that show what a model sees and says."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

# Okabe and Ito's colours, told apart by colour-blind readers as well; white
# is the background
COLOURS = (
    '#ffffff',
    '#e69f00',
    '#56b4e9',
    '#009e73',
    '#f0e442',
    '#0072b2',
    '#d55e00',
    '#cc79a7',
    '#000000',
    '#999999',
    '#8b4513',
)


def segmentation_grid(
    images: Sequence[np.ndarray],
    label_maps: Mapping[str, Sequence[np.ndarray]],
    classes: Sequence[str],
    title: str = '',
) -> Figure:
    """Images beside their label maps: a row for each image.

    Args:
        images: RGB images (H, W, 3), uint8.
        label_maps: For each column (such as the truth and each model's
            prediction) its heading and one label map (H, W) an image.
        classes: Class names by label; their colours stand in the legend.
        title: Title of the picture. Defaults to none.

    Returns:
        A figure that :func:`save` writes.
    """
    columns = 1 + len(label_maps)
    figure = Figure(
        figsize=(2.2 * columns, 2.2 * len(images) + 1.1), layout='constrained'
    )
    axes = figure.subplots(len(images), columns, squeeze=False)
    palette = _palette(len(classes))
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
    for axis, heading in zip(axes[0], ('image', *label_maps)):
        axis.set_title(heading, fontsize=10)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.legend(
        handles=[
            Patch(facecolor=palette(i), edgecolor='black', label=name)
            for i, name in enumerate(classes)
        ],
        loc='outside lower center',
        ncols=6,
        fontsize=8,
    )
    figure.suptitle(title)
    return figure


def _palette(count: int) -> ListedColormap:
    if count <= len(COLOURS):
        return ListedColormap(COLOURS[:count])
    return matplotlib.colormaps['turbo'].resampled(count)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, making its folder if need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
