"""The models to measure, and what they can be compared at."""

import copy
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
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.engine.build import build
from mmvitcompress.errors import ConfigError
from mmvitcompress.planning import plan_arch
from mmvitcompress.tokens import METHODS


def build_candidate(
    config: Config, checkpoint: str | None = None
) -> nn.Module:
    """Build a config's model as it would be deployed, with the weights of
    ``checkpoint`` or the config's ``load_from``."""
    if checkpoint is None:
        checkpoint = config.get('load_from')
    return build(config, checkpoint, 'measure')


def with_method(
    config: Config, method: str, target: float, shape: Sequence[int] | None
) -> Config:
    """A config whose backbone reduces tokens by one method, and no other.

    Args:
        config: Of a model with a backbone of ours that names its ``arch``.
        method: Key of the token method, see
            :data:`~mmvitcompress.tokens.METHODS`.
        target: What it saves, as a fraction of the dense backbone's MACs; the
            planner finds its arguments.
        shape: The image size that this is counted at. Defaults to what the
            config tells.

    Raises:
        ConfigError: If the target is out of reach, or there is no such arch.
    """
    config = copy.deepcopy(config)
    backbone = (config.get('model') or {}).get('backbone') or {}
    if backbone.get('arch') is None:
        raise ConfigError(
            f'{method} is planned for an arch, but the backbone '
            f'{backbone.get("type")} names none: take a dense config of ours'
        )
    size = as_shape(shape) if shape else default_shape(config)
    arch = get_arch(backbone.arch)
    found = plan_arch(arch, target, size, method=method)
    backbone.update({key: None for key in METHODS if key in backbone})
    backbone.update(found.config())
    return config


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
