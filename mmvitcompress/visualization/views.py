"""From configs and checkpoints to pictures: one function for each kind.

What is computed and how it is drawn stands in the modules of each kind; these
functions load what is needed for it, as tools/visualize.py wants it.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.swin import Swin
from mmvitcompress.visualization import attention as attention_maps
from mmvitcompress.visualization import (
    channel_pictures,
    curve,
    segmentation,
    segmentation_pictures,
)
from mmvitcompress.visualization import features as feature_maps
from mmvitcompress.visualization import life as lives_of
from mmvitcompress.visualization import merges as token_borders
from mmvitcompress.visualization.channels import read_heads, read_widths
from mmvitcompress.visualization.loading import (
    Source,
    load_images,
    load_model,
    to_pictures,
)
from mmvitcompress.visualization.running import backbone_of
from mmvitcompress.visualization.style import Figure

Weights = tuple[str, str]
"""A config and a checkpoint."""
DEFAULT = Source()


class View(NamedTuple):
    """A picture that can be drawn, whole or row by row.

    Attributes:
        caption: How it is to be read.
        rows: How many rows it has that can be drawn one by one.
        draw: Draws the rows of these places.
        figures: The numbers in it, of builtin types, or None.
    """

    caption: str
    rows: int
    draw: Callable[[Sequence[int]], Figure]
    figures: dict | None = None

    def whole(self) -> Figure:
        """The figure with all rows."""
        return self.draw(range(self.rows))

    def sections(self) -> Iterator[tuple[str, Figure]]:
        """Heading and figure of each row, or of the whole if it is one."""
        for row in range(self.rows):
            heading = f'image {row + 1}' if self.rows > 1 else ''
            yield heading, self.draw([row])


def merges(
    config: str,
    checkpoint: str | None = None,
    source: Source = DEFAULT,
    options: dict | None = None,
) -> View:
    """Which patches share a token, stage by stage."""
    cfg, model = load_model(config, checkpoint, options)
    arch = backbone_of(model).arch
    pictures = to_pictures(load_images(cfg, model, source), model, cfg)

    def draw(rows):
        return token_borders.draw_merges([pictures[i] for i in rows], arch)

    return View(token_borders.CAPTION, len(pictures), draw)


def life(
    config: str,
    checkpoint: str,
    source: Source = DEFAULT,
    options: dict | None = None,
) -> View:
    """Predicted lives, and the patches that are left after each layer."""
    cfg, model = load_model(config, checkpoint, options)
    backbone = backbone_of(model)
    images = load_images(cfg, model, source)
    lives = lives_of.predict_lives(backbone, images)
    pictures = to_pictures(images, model, cfg)

    def draw(rows):
        rows = list(rows)
        part = lives._replace(
            lives=lives.lives[rows],
            kept={layer: kept[rows] for layer, kept in lives.kept.items()},
        )
        patch = backbone.arch.patch_size
        return lives_of.draw_life([pictures[i] for i in rows], part, patch)

    return View(lives_of.CAPTION, len(pictures), draw)


def channels(
    checkpoints: Sequence[str],
    names: Sequence[str] | None = None,
    heads: bool = False,
) -> View:
    """What blocks keep of their channels; with ``heads``, what became of the
    channels of each head."""
    names = name_all(checkpoints, names)
    read = read_heads if heads else read_widths
    models = {name: read(path) for name, path in zip(names, checkpoints)}
    pictures = channel_pictures
    if heads:
        figures = {
            name: {
                kind: {
                    fate: int(count.sum())
                    for fate, count in each._asdict().items()
                }
                for kind, each in kinds.items()
            }
            for name, kinds in models.items()
        }
        caption, draw = pictures.HEADS_CAPTION, pictures.draw_heads
    else:
        figures = {
            name: {key: value.tolist() for key, value in m._asdict().items()}
            for name, m in models.items()
        }
        caption, draw = pictures.SHARES_CAPTION, pictures.draw_channels
    return View(caption, 1, lambda rows: draw(models), figures)


def attention(
    config: str,
    checkpoint: str,
    dense: Weights | None = None,
    source: Source = DEFAULT,
    options: dict | None = None,
    head: int | None = None,
) -> View:
    """What the last block looks at, in the dense and the compressed model."""
    models, pictures = _models(config, checkpoint, dense, source, options)
    maps = {
        name: attention_maps.class_attention(backbone, images, head)
        for name, (backbone, images) in models.items()
    }
    backbones = [backbone for backbone, _ in models.values()]
    patch = backbones[0].arch.patch_size

    def draw(rows):
        rows = list(rows)
        return attention_maps.draw_attention(
            [pictures[i] for i in rows],
            {name: each[rows] for name, each in maps.items()},
            patch,
            _attention_title(backbones, head),
        )

    return View(attention_maps.CAPTION, len(pictures), draw)


def features(
    config: str,
    checkpoint: str,
    dense: Weights | None = None,
    source: Source = DEFAULT,
    options: dict | None = None,
    levels: Sequence[int] | None = None,
) -> View:
    """Restored features as colours, of the dense and the compressed model.

    ``levels`` are counted from 1, like blocks in all texts.
    """
    models, pictures = _models(config, checkpoint, dense, source, options)
    levels = levels and [level - 1 for level in levels]
    maps = {
        name: feature_maps.restored_maps(backbone, images, levels)
        for name, (backbone, images) in models.items()
    }
    colours = feature_maps.colour_maps(maps)
    backbone, _ = next(iter(models.values()))
    unit = 'stage' if isinstance(backbone, Swin) else 'block'

    def draw(rows):
        rows = list(rows)
        part = {
            name: {level: colour[rows] for level, colour in each.items()}
            for name, each in colours.items()
        }
        return feature_maps.draw_features(
            [pictures[i] for i in rows], part, unit
        )

    return View(feature_maps.CAPTION, len(pictures), draw)


def compare(
    config: str,
    checkpoint: str,
    dense: Weights,
    evaluate: int = 100,
    show: int = 4,
    options: dict | None = None,
) -> View:
    """Predictions of a dense and a compressed segmentor on validation data."""
    cfg, model = load_model(config, checkpoint, options, whole=True)
    _, other = load_model(*dense, options, whole=True)
    models = {'dense': other, 'compressed': model}
    comparison = segmentation.compare_segmentors(cfg, models, evaluate, show)
    return View(
        segmentation_pictures.CAPTION,
        1,
        lambda rows: segmentation_pictures.draw_comparison(comparison),
        segmentation.figures(comparison),
    )


def plot(results: Sequence[dict]) -> View:
    """Quality against cost."""
    draw = curve.draw_curve
    return View(curve.CAPTION, 1, lambda rows: draw(results))


def name_all(
    paths: Sequence[str], names: Sequence[str] | None = None
) -> list[str]:
    """A name for each file.

    Args:
        paths: The files.
        names: What the user calls them. Defaults to the files' folders and
            names, as short as they can be told apart.

    Raises:
        ConfigError: If names are missing or used twice.
    """
    if names is None:
        for parts in (1, 2, 3):
            names = ['/'.join(Path(path).parts[-parts:]) for path in paths]
            if len(set(names)) == len(paths):
                return names
        names = list(map(str, paths))
    if len(names) != len(paths) or len(set(names)) != len(names):
        raise ConfigError(
            f'names must be given for each of {len(paths)} files, all '
            f'different, but got {list(names)}'
        )
    return list(names)


def _models(config, checkpoint, dense, source, options):
    """Backbone and images of each model by its name, and the pictures.

    Each model gets the images as its own config prepares them.
    """
    models, pictures = {}, None
    pairs = {'compressed': (config, checkpoint)}
    if dense is not None:
        pairs = {'dense': tuple(dense), **pairs}
    for name, pair in pairs.items():
        cfg, model = load_model(*pair, options)
        backbone = backbone_of(model)
        images = load_images(cfg, model, source)
        shown = to_pictures(images, model, cfg)
        if pictures is not None and pictures[0].shape != shown[0].shape:
            raise ConfigError(
                'the configs make images of different sizes, '
                f'{pictures[0].shape[:2]} and {shown[0].shape[:2]}; give one '
                'by --shape'
            )
        models[name], pictures = (backbone, images), shown
    return models, pictures


def _attention_title(backbones, head: int | None) -> str:
    if all(each.num_prefix_tokens for each in backbones):
        who = 'attention of [CLS]'
    else:
        who = 'mean attention of all patches'
    which = 'mean of all heads' if head is None else f'head {head}'
    return f'What the last block looks at: {who}, {which}'
