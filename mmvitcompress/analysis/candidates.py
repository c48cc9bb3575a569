"""The models to measure, and what they can be compared at."""

from collections.abc import Sequence

import torch
from mmengine.config import Config
from torch import nn

from mmvitcompress.analysis.configs import (
    Shape,
    as_shape,
    default_shape,
)
from mmvitcompress.analysis.inference import padded_shape
from mmvitcompress.engine.build import build
from mmvitcompress.errors import ConfigError


def build_candidate(
    config: Config, checkpoint: str | None = None
) -> nn.Module:
    """Build a config's model as it would be deployed, with the weights of
    ``checkpoint`` or the config's ``load_from``."""
    if checkpoint is None:
        checkpoint = config.get('load_from')
    return build(config, checkpoint, 'measure')


def common_shape(
    configs: Sequence[Config],
    models: Sequence[nn.Module],
    shape: Sequence[int] | None = None,
) -> Shape:
    """The image size, before padding, at which models are compared: ``shape``
    or else what their configs tell.

    Raises:
        ConfigError: If the configs tell different sizes, or the models pad to
            different ones.
    """
    shapes = [as_shape(shape)] if shape else list(map(default_shape, configs))
    if len(set(shapes)) > 1:
        raise ConfigError(
            f'the configs tell different sizes, {shapes}; give one by --shape'
        )
    padded = {padded_shape(model, shapes[0]) for model in models}
    if len(padded) > 1:
        raise ConfigError(
            f'the models pad {shapes[0]} differently, to {sorted(padded)}; '
            'give a --shape that none of them pads'
        )
    return shapes[0]


def choose_device(name: str | None) -> torch.device:
    """The device to run on: CUDA if there is one and none is named.

    Raises:
        ConfigError: If the one that is named can't be used.
    """
    if name is None:
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f'device {name!r} cannot be used ({reason}); choose another'
        ) from error
    return device
