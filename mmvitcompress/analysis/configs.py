"""Models and image sizes from config files, for counting and timing."""

import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmvitcompress.engine.config import read_config
from mmvitcompress.errors import ConfigError

Shape = tuple[int, int]


def load_config(
    path: str, options: dict | None = None, backbone: str | None = None
) -> Config:
    """Read a config file and override parts of it.

    The arguments are those of
    :func:`~mmvitcompress.engine.config.read_config`.

    Raises:
        ConfigError: If it can't be read or describes no model.
    """
    config = read_config(path, options, backbone)
    if 'model' not in config:
        raise ConfigError(f"config file {path!r} has no 'model'")
    return config


def build_model(config: Config) -> nn.Module:
    """Build the model of a config for its shapes, with random weights.

    Nothing is downloaded. A ``checkpoint`` that exists is used, since it may
    decide widths; one that is missing is passed over with a note on stderr,
    if an ``arch`` stands beside it that tells the shape as well.
    """
    init_default_scope(config.get('default_scope') or 'mmengine')
    model = deepcopy(config.model)
    # neither a teacher nor compactors are part of what is deployed
    model.pop('distillation', None)
    if 'compactors' in (model.get('backbone') or {}):
        model.backbone.compactors = False
    for part in (model, model.get('backbone')):
        for key in ('pretrained', 'init_cfg'):
            if part and part.get(key):
                part[key] = None
    for part in _dicts(model):
        checkpoint, arch = part.get('checkpoint'), part.get('arch')
        if checkpoint and arch and not Path(checkpoint).is_file():
            part['checkpoint'] = None
            print(
                f'note: checkpoint {checkpoint!r} does not exist; taking the '
                f'shape of arch {arch!r}, with random weights',
                file=sys.stderr,
            )
    return revert_sync_batchnorm(MODELS.build(model))


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
        ConfigError: If they are not one or two positive integers.
    """
    sizes = [size] if isinstance(size, int) else list(size)
    if len(sizes) not in (1, 2) or any(side < 1 for side in sizes):
        raise ConfigError(
            f'shape must be one or two positive integers, but got {sizes}'
        )
    return sizes[0], sizes[-1]


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


def _dicts(config: object) -> Iterator[dict]:
    """All dicts in ``config``, itself included."""
    if isinstance(config, dict):
        yield config
        config = list(config.values())
    if isinstance(config, list | tuple):
        for value in config:
            yield from _dicts(value)
