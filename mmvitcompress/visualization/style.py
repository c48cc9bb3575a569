"""What all pictures share: colours, panels, and ways out of matplotlib."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmvitcompress.errors import ConfigError, DependencyError

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.colors import ListedColormap, PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.patches import Patch
except ModuleNotFoundError as error:
    raise DependencyError(
        'pictures need matplotlib, which is not installed: pip install '
        'matplotlib'
    ) from error

__all__ = ['Axes', 'Figure', 'LineCollection', 'Patch', 'PowerNorm']

# Okabe and Ito's colours, told apart by colour-blind readers as well
BLACK, ORANGE, SKY, GREEN = '#000000', '#e69f00', '#56b4e9', '#009e73'
YELLOW, BLUE, VERMILLION, PURPLE = '#f0e442', '#0072b2', '#d55e00', '#cc79a7'
GREY, PALE = '#999999', '#dddddd'
SERIES = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK, GREY)
"""Colours of lines and bars, in the order of their use."""
CLASSES = (
    *('#ffffff', ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE),
    *(BLACK, GREY, '#8b4513'),
)
"""Colours of classes; the first, white, is mostly the background."""
HEAT = 'viridis'
DPI = 110


def class_colours(count: int) -> ListedColormap:
    """A colour for each of ``count`` classes.

    Up to eleven are told apart by colour-blind readers as well.
    """
    if count <= len(CLASSES):
        return ListedColormap(CLASSES[:count])
    return matplotlib.colormaps['turbo'].resampled(count)


def panels(
    rows: int, columns: int, aspect: float = 1.0, width: float = 2.0
) -> tuple[Figure, np.ndarray]:
    """A figure of equal panels without ticks.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        aspect: Height of a panel over its width. Defaults to 1.
        width: Width of a panel, in inches. Defaults to 2.

    Returns:
        The figure, and its axes (rows, columns).
    """
    size = (width * columns, width * aspect * rows + 0.8)
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure, axes


def show_photo(axis: Axes, picture: np.ndarray) -> None:
    """Show a picture (H, W, 3) such that axes count in its pixels."""
    height, width = picture.shape[:2]
    axis.imshow(
        picture, extent=(0, width, height, 0), interpolation='bilinear'
    )


def show_map(
    axis: Axes, values: np.ndarray, size: Sequence[int], **kwargs
) -> AxesImage:
    """Show a value or colour for each patch over a picture's area.

    Args:
        axis: Where.
        values: (h, w) or (h, w, 3), one for each patch; the last row and
            column may reach beyond the picture.
        size: Height and width of the picture, and the edge of a patch, in
            pixels.
        **kwargs: For ``imshow``.
    """
    height, width, patch = size
    rows, columns = values.shape[:2]
    extent = (0, columns * patch, rows * patch, 0)
    image = axis.imshow(
        values, extent=extent, interpolation='nearest', **kwargs
    )
    axis.set(xlim=(0, width), ylim=(height, 0))
    return image


def head_columns(axes: np.ndarray, headings: Sequence[str]) -> None:
    """Write headings over the columns of panels."""
    for axis, heading in zip(axes[0], headings):
        axis.set_title(heading, fontsize=9)


def to_array(figure: Figure, dpi: int = DPI) -> np.ndarray:
    """A figure's pixels (H, W, 3), RGB, uint8, as Visualizers take them."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save(figure: Figure, path: str | Path, dpi: int = DPI) -> None:
    """Write a figure, making its folder if need be.

    Raises:
        ConfigError: If the suffix names no format that can be written.
    """
    check_format(path)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)


def check_format(path: str | Path) -> None:
    """Raise ConfigError if no picture can be written to a name."""
    known = FigureCanvasAgg.get_supported_filetypes()
    if Path(path).suffix.lower().lstrip('.') not in known:
        raise ConfigError(
            'a picture must be named *.png or another of '
            f'{", ".join(sorted(known))}, but got {str(path)!r}'
        )
