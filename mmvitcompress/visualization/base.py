"""What a kind of figure is, and the models and images that it is made of."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

from numpy import ndarray
from torch import Tensor, nn

from mmvitcompress.engine.config import add_cfg_options
from mmvitcompress.errors import ConfigError
from mmvitcompress.visualization.loading import (
    backbone_of,
    load_images,
    load_model,
    to_pictures,
)
from mmvitcompress.visualization.style import Figure


class View(NamedTuple):
    """A figure that can be drawn, whole or row by row.

    Attributes:
        draw: Draws the rows of these places.
        rows: How many rows it has that can be drawn one by one. Defaults to
            1.
        numbers: The numbers in it, of builtin types. Defaults to None.
    """

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
        has_numbers: Whether its views have numbers. Defaults to False.
    """

    about: ClassVar[str]
    caption: ClassVar[str]
    has_numbers: ClassVar[bool] = False

    @abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of :meth:`view`, under their names."""

    @abstractmethod
    def view(self, **arguments) -> View:
        """Load and compute what is drawn."""


class Seen(NamedTuple):
    """A model to look into, and the images as it gets them.

    Attributes:
        backbone: Its backbone.
        images: (3, H, W) each, normalised and padded.
    """

    backbone: nn.Module
    images: Sequence[Tensor]


class ModelKind(Kind):
    """A kind of figure of what models do to images.

    Attributes:
        checkpoint: ``'?'`` if random weights do. Defaults to None.
        beside: Whether an uncompressed model may stand beside it. Defaults
            to True.
    """

    checkpoint: ClassVar[str | None] = None
    beside: ClassVar[bool] = True

    @abstractmethod
    def shows(self, backbone: nn.Module) -> bool:
        """Whether a backbone has something to show while it trains."""

    @abstractmethod
    def look(
        self, models: Mapping[str, Seen], pictures: list[ndarray], **options
    ) -> View:
        """Compute what is drawn.

        Args:
            models: The models by their names.
            pictures: Their images as people see them, RGB (H, W, 3).
            **options: Those of the kind.
        """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of :meth:`view`, under their names."""
        add_models(parser, self.checkpoint, False if self.beside else None)
        add = parser.add_argument
        source = "image, folder of images, or dataset: the config's test data"
        add('--images', default='dataset', metavar='SOURCE', help=source)
        count = 'images at equal distances in it'
        add('--count', type=int, default=4, metavar='N', help=count)
        shape = (
            'height and width to resize them to, in pixels, or one for both; '
            "by default the size and aspect that the config's test pipeline "
            'gives to each'
        )
        add('--shape', type=int, nargs='+', metavar='N', help=shape)

    def view(
        self,
        config: str,
        checkpoint: str | None = None,
        dense: Sequence[str] | None = None,
        images: str = 'dataset',
        count: int = 4,
        shape: Sequence[int] | None = None,
        cfg_options: dict | None = None,
        **options,
    ) -> View:
        """Load models and images, each model's as its config prepares them.

        Args:
            config: Config of the compressed model.
            checkpoint: Its weights. Defaults to random ones.
            dense: Config and checkpoint of a model to stand beside it.
                Defaults to none.
            images: An image, a folder of images, or 'dataset' for the
                config's test data. Defaults to 'dataset'.
            count: How many, at equal distances. Defaults to 4.
            shape: Height and width that they are resized to, in pixels.
                Defaults to what the config's test pipeline makes of each.
            cfg_options: Values of the configs to override, by dotted key.
            **options: Those of the kind.

        Raises:
            ConfigError: If a config can't be read or has no backbone of ours,
                or the configs make images of different sizes.
            CheckpointError: If a checkpoint is missing or of another model.
            DataError: If data are missing or damaged.
        """
        given = {'compressed': (config, checkpoint)}
        if dense is not None:
            given = {'dense': tuple(dense), **given}
        models, pictures = {}, None
        for name, (path, weights) in given.items():
            cfg, model = load_model(path, weights, cfg_options)
            backbone = backbone_of(model)
            inputs = load_images(cfg, model, images, count, shape)
            models[name] = Seen(backbone, inputs)
            before, pictures = pictures, to_pictures(inputs, model, cfg)
            for first, second in zip(before or (), pictures):
                if first.shape != second.shape:
                    raise ConfigError(
                        'the configs make images of different sizes, '
                        f'{first.shape[:2]} and {second.shape[:2]}; give one '
                        'by --shape'
                    )
        return self.look(models, pictures, **options)


def add_models(
    parser: argparse.ArgumentParser,
    checkpoint: str | None = None,
    dense: bool | None = None,
) -> None:
    """Add config and checkpoint of a model.

    Args:
        parser: The parser.
        checkpoint: ``nargs`` of the checkpoint. Defaults to None.
        dense: Whether those of an uncompressed model are needed; None if
            there is no place for it. Defaults to None.
    """
    add = parser.add_argument
    add('config', help='config of the compressed model')
    add('checkpoint', nargs=checkpoint, help='its checkpoint')
    if dense is not None:
        pair = ('CONFIG', 'CHECKPOINT')
        beside = 'the uncompressed model to stand beside it'
        add('--dense', nargs=2, required=dense, metavar=pair, help=beside)
    add_cfg_options(parser, 'override settings of all configs')
