"""What config files say of images, for counting and timing."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mmvitcompress.engine.config import read_config
from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.utils.checks import pair

Shape = tuple[int, int]


def load_config(
    path: str, options: dict | None = None, backbone: str | None = None
) -> Config:
    """Read a model's config by
    :func:`~mmvitcompress.engine.config.read_config`.

    Raises:
        ConfigError: If it can't be read or describes no model.
        CheckpointError: If a checkpoint that ``options`` name is missing.
    """
    for key, value in (options or {}).items():
        if key.rpartition('.')[2] not in ('checkpoint', 'load_from'):
            continue
        if isinstance(value, str) and not Path(value).is_file():
            raise CheckpointError(
                f'checkpoint {value!r} not found; correct {key}, or leave it '
                'out for random weights'
            )
    config = read_config(path, options, backbone)
    if 'model' not in config:
        raise ConfigError(f"config file {path!r} has no 'model'")
    return config


def default_shape(config: Config) -> Shape:
    """Height and width of the images that a config is about.

    The first of: ``crop_size``; ``model.data_preprocessor.size``; what the
    test pipeline crops or resizes to (``scale`` is width, height: the usual
    (1333, 800) is an image of 800 x 1333); ``model.backbone.img_size``.

    Raises:
        ConfigError: If none of them is there.
    """
    preprocessor = config.model.get('data_preprocessor') or {}
    size = config.get('crop_size') or preprocessor.get('size')
    size = size or _pipeline_shape(config)
    size = size or config.model.get('backbone', {}).get('img_size')
    if not size:
        raise ConfigError(
            'the config does not tell an image size; give one by --shape'
        )
    return as_shape(size)


def as_shape(size: int | Sequence[int]) -> Shape:
    """Height and width from one number or two.

    Raises:
        ConfigError: If they are not one or two sides of an image.
    """
    return pair('shape', size)


def _pipeline_shape(config: Config) -> Shape | None:
    """The last fixed size in the test pipeline, as (height, width)."""
    loader = config.get('test_dataloader') or {}
    pipeline = config.get('test_pipeline')
    pipeline = pipeline or loader.get('dataset', {}).get('pipeline') or ()
    shape = None
    for step in pipeline:
        kind = step['type'].rpartition('.')[-1]
        if kind == 'Resize' and step.get('scale'):
            shape = as_shape(step['scale'])[::-1]
        elif kind == 'CenterCrop' and step.get('crop_size'):
            shape = as_shape(step['crop_size'])
    return shape
