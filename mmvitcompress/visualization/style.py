"""What all figures share: colours, panels, and ways out of matplotlib."""

import base64
import html
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.files import replacing, write_atomically

# Okabe and Ito's colours, told apart by colour-blind readers as well
BLACK, ORANGE, SKY, GREEN = '#000000', '#e69f00', '#56b4e9', '#009e73'
BLUE, VERMILLION, PURPLE = '#0072b2', '#d55e00', '#cc79a7'
GREY, PALE = '#999999', '#dddddd'
SERIES = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK, GREY)
"""Colours of lines and bars, in the order of their use."""
HEAT = 'viridis'
GONE = (0.72, 0.77, 0.82, 0.95)
"""Colour and opacity of patches that have left; a tone that photos of
white things don't hide."""
DPI = 110
_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body{{font:16px/1.5 sans-serif;max-width:80em;margin:2em auto;
padding:0 1em;color:#222;background:#fff}}img{{max-width:100%;height:auto}}
pre{{background:#f4f4f4;padding:.7em;overflow:auto}}
h2{{font-size:1.1em;margin:2em 0 .3em}}</style></head>
<body>
<h1>{title}</h1>
<p>{caption}</p>
{pictures}
<pre>{notes}</pre>
</body></html>
"""


def draw_rows(
    pictures: Sequence[np.ndarray],
    rows: Sequence[int] | None,
    headings: Callable[[int], Sequence[str]],
    paint: Callable[[Sequence[Axes], int], None],
    title: str,
    width: float = 2.0,
) -> Figure:
    """A figure with a row of panels for each picture.

    Args:
        pictures: RGB (H, W, 3), uint8.
        rows: Which of the pictures; None for all.
        headings: From a picture's place to those of its panels.
        paint: Fills the panels of a picture, given them and its place.
        title: Title of the figure.
        width: Of a panel, in inches. Defaults to 2.
    """
    rows = range(len(pictures)) if rows is None else rows
    heads = [headings(row) for row in rows]
    sizes = [pictures[row].shape for row in rows]
    height = sum(size[0] / size[1] for size in sizes)
    size = (width * len(heads[0]), width * height + 0.8)
    figure = Figure(figsize=size, layout='constrained')
    axes = panels(figure, sizes, len(heads[0]))
    head_panels(axes, heads)
    for panel, row in zip(axes, rows):
        paint(panel, row)
    figure.suptitle(title, fontsize=11)
    return figure


def panels(
    figure: Figure | SubFigure, sizes: Sequence[Sequence[int]], columns: int
) -> np.ndarray:
    """Panels (rows, columns) without ticks, each row as high as its picture
    of height, width and so on needs."""
    aspects = [size[0] / size[1] for size in sizes]
    axes = figure.subplots(
        *(len(sizes), columns), squeeze=False, height_ratios=aspects
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return axes


def head_panels(axes: np.ndarray, headings: Sequence[Sequence[str]]) -> None:
    """Write each row's headings over its panels; where all rows of a column
    have the same, over the first only."""
    for column, texts in zip(axes.T, zip(*headings)):
        alike = len(set(texts)) == 1
        for axis, text in zip(column[:1] if alike else column, texts):
            axis.set_title(text, fontsize=9)


def show_photo(axis: Axes, picture: np.ndarray) -> None:
    """Show a picture (H, W, 3) such that axes count in its pixels."""
    height, width = picture.shape[:2]
    axis.imshow(
        picture, extent=(0, width, height, 0), interpolation='bilinear'
    )


def show_map(
    axis: Axes, values: np.ndarray, size: Sequence[int], stride: int, **kwargs
) -> AxesImage:
    """Show values (h, w) or colours (h, w, channels) of patches of ``stride``
    pixels over a picture of ``size``; the last ones may reach beyond it."""
    rows, columns = values.shape[:2]
    extent = (0, columns * stride, rows * stride, 0)
    image = axis.imshow(
        values, extent=extent, interpolation='nearest', **kwargs
    )
    axis.set(xlim=(0, size[1]), ylim=(size[0], 0))
    return image


def cover(axis: Axes, gone: np.ndarray, size, stride: int) -> None:
    """Cover the patches (h, w) that have left, where ``gone`` is true."""
    veil = np.full((*gone.shape, 4), GONE)
    veil[..., 3] *= gone
    show_map(axis, veil, size, stride)


def swatch(colour, label: str, edge: str = 'black') -> Patch:
    """A legend's entry for a colour."""
    return Patch(facecolor=colour, edgecolor=edge, label=label)


def bare(axis: Axes) -> None:
    """Take the frame's upper and right side away."""
    axis.spines[['top', 'right']].set_visible(False)


def to_array(figure: Figure, dpi: int = DPI) -> np.ndarray:
    """A figure's pixels (H, W, 3), RGB, uint8, as Visualizers take them."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figure(figure: Figure, path: str | Path, dpi: int = DPI) -> None:
    """Write a figure; one that was there before stays if that fails.

    Raises:
        ConfigError: If the suffix names no format that can be written.
    """
    check_format(path)
    with replacing(path) as part:
        figure.savefig(part, dpi=dpi, format=Path(path).suffix[1:].lower())


def check_format(path: str | Path) -> None:
    """Raise ConfigError if no picture can be written to a name."""
    known = FigureCanvasAgg.get_supported_filetypes()
    if Path(path).suffix.lower().lstrip('.') not in known:
        raise ConfigError(
            'a picture must be named *.png or another of '
            f'{", ".join(sorted(known))}, but got {str(path)!r}'
        )


def check_page(path: str | Path) -> None:
    """Raise ConfigError if a page's name doesn't say that it is one."""
    if Path(path).suffix.lower() not in ('.html', '.htm'):
        raise ConfigError(
            f'a page must be named *.html, but got {str(path)!r}'
        )


def write_page(
    path: str | Path,
    title: str,
    caption: str,
    sections: Iterable[tuple[str, Figure]],
    notes: str,
) -> None:
    """Write an HTML page that holds its pictures.

    Args:
        path: Ends in ``.html`` or ``.htm``.
        title: Heading of the page.
        caption: How the pictures are to be read.
        sections: Heading ('' for none) and picture of each section.
        notes: Preformatted text at the end.

    Raises:
        ConfigError: If the path has another suffix.
    """
    check_page(path)
    title, caption, notes = map(html.escape, (title, caption, notes))
    pictures = []
    for heading, figure in sections:
        name, buffer = html.escape(heading), io.BytesIO()
        figure.savefig(buffer, format='png', dpi=150)
        data = base64.b64encode(buffer.getvalue()).decode()
        pictures.append(
            (f'<h2>{name}</h2>\n' if name else '')
            + f'<img alt="{name or title}" src="data:image/png;base64,{data}">'
        )
    pictures = '\n'.join(pictures)
    text = _PAGE.format(
        title=title, caption=caption, pictures=pictures, notes=notes
    )
    write_atomically(path, text)
