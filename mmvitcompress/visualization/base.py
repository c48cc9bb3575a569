"""What a kind of figure is, and the models and images that it is made of."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

from numpy import ndarray
from torch import Tensor, nn

from mmvitcompress.engine.config import BACKBONE_HELP, OptionsAction
from mmvitcompress.errors import ConfigError
from mmvitcompress.visualization.loading import (
    backbone_of,
    load_images,
    load_model,
    to_pictures,
)
from mmvitcompress.visualization.style import Figure

WORDS = dict(nargs='+', metavar='NAME')
FILE = dict(metavar='FILE')
NUMBER = dict(type=int, metavar='N')
# arguments of a command line, and what argparse is to know of them
COMPRESSED = {
    'config': dict(help='config of the compressed model'),
    'checkpoint': dict(help='its checkpoint'),
    '--backbone': dict(metavar='FILE', help=BACKBONE_HELP),
    '--cfg-options': dict(
        nargs='+',
        action=OptionsAction,
        metavar='KEY=VALUE',
        help='override settings of all configs',
    ),
}
DENSE = {
    '--dense': dict(
        nargs=2,
        metavar=('CONFIG', 'CHECKPOINT'),
        help='the uncompressed model to stand beside it',
    )
}
IMAGES = {
    '--images': dict(
        default='dataset',
        metavar='SOURCE',
        help="image, folder of images, or dataset: the config's test data",
    ),
    '--count': dict(
        **NUMBER, default=4, help='images at equal distances in it'
    ),
    '--shape': dict(
        **NUMBER,
        nargs='+',
        help='height and width to resize them to, in pixels, or one for both; '
        "by default what the config's test pipeline makes of each",
    ),
}


class View(NamedTuple):
    """A figure that ``draw`` draws, whole or the rows of some places, and the
    numbers in it, of builtin types."""

    draw: Callable[[Sequence[int]], Figure]
    rows: int = 1
    numbers: dict | None = None

    def whole(self) -> Figure:
        """The figure with all rows."""
        return self.draw(range(self.rows))

    def sections(self) -> Iterator[tuple[str, Figure]]:
        """Heading and figure of each row, or of the whole if it is one."""
        for row in range(self.rows):
            heading = f'image {row + 1}' if self.rows > 1 else ''
            yield heading, self.draw([row])


class Kind(ABC):
    """A kind of figure: what it asks for, computes, draws and says.

    One module and one entry of ``FIGURES`` each; tools/visualize.py and
    :class:`CompressionVisualizationHook` follow from them.

    Attributes:
        about: What one sees, in a few words.
        caption: How the figure is to be read.
        arguments: Those of :meth:`view` as the tool takes them, and what
            argparse is to know of each.
        has_numbers: Whether its views have numbers. Defaults to False.
    """

    about: ClassVar[str]
    caption: ClassVar[str]
    arguments: ClassVar[dict[str, dict]]
    has_numbers: ClassVar[bool] = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments to a command line."""
        for name, options in self.arguments.items():
            parser.add_argument(name, **options)

    @abstractmethod
    def view(self, **arguments) -> View:
        """Load and compute what is drawn."""


class Seen(NamedTuple):
    """A backbone to look into, and images (3, H, W) as it gets them."""

    backbone: nn.Module
    images: Sequence[Tensor]


class ModelKind(Kind):
    """A kind of figure of what models do to images, a row for each image."""

    arguments: ClassVar = {**COMPRESSED, **IMAGES}
    draw: ClassVar[Callable[..., Figure]]

    @abstractmethod
    def shows(self, backbone: nn.Module) -> bool:
        """Tell whether a backbone has something to show while it trains."""

    @abstractmethod
    def compute(self, models: Mapping[str, Seen], **options) -> tuple:
        """Compute what ``draw`` takes after the pictures."""

    def look(
        self, models: Mapping[str, Seen], pictures: list[ndarray], **options
    ) -> View:
        """Compute and draw; pictures are the images, RGB (H, W, 3)."""
        drawn = self.compute(models, **options)
        return View(
            lambda rows: self.draw(pictures, *drawn, rows=rows), len(pictures)
        )

    def view(
        self,
        config: str,
        checkpoint: str | None = None,
        dense: Sequence[str] | None = None,
        images: str = 'dataset',
        count: int = 4,
        shape: Sequence[int] | None = None,
        cfg_options: dict | None = None,
        backbone: str | None = None,
        **options,
    ) -> View:
        """Load models and images, each model's as its config prepares them.

        Args:
            config: Config of the compressed model.
            checkpoint: Its weights. Defaults to random ones.
            dense: Config and checkpoint of a model to stand beside it.
                Defaults to none.
            images: As of :func:`load_images`, as are the next two.
            count: How many images.
            shape: Height and width in pixels, or one number for both.
            cfg_options: Values of the configs to override, by dotted key.
            backbone: What ``config`` gets in place of its own backbone.
            **options: Those of the kind.

        Raises:
            ConfigError: If a config can't be read or has no backbone of ours,
                or the configs make images of different sizes.
            CheckpointError: If a checkpoint is missing or of another model.
            DataError: If data are missing or damaged.
        """
        given = {'compressed': (config, checkpoint, backbone)}
        if dense is not None:
            given = {'dense': (*dense, None), **given}
        models, pictures = {}, []
        for name, (path, weights, other) in given.items():
            cfg, model = load_model(path, weights, cfg_options, backbone=other)
            inputs = load_images(cfg, model, images, count, shape)
            models[name] = Seen(backbone_of(model), inputs)
            before, pictures = pictures, to_pictures(inputs, model, cfg)
            for first, second in zip(before, pictures):
                if first.shape != second.shape:
                    raise ConfigError(
                        'the configs make images of different sizes, '
                        f'{first.shape[:2]} and {second.shape[:2]}; give one '
                        'by --shape'
                    )
        return self.look(models, pictures, **options)
