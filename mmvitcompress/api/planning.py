"""``plan``: what to ask ``compress`` for."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mmvitcompress.api.calibration import Calibration
from mmvitcompress.api.compressing import compress
from mmvitcompress.api.files import read
from mmvitcompress.api.model import CompressedModel
from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.zoo import ARCHS, get_arch
from mmvitcompress.checkpoints.timm import create, describe
from mmvitcompress.errors import ConfigError
from mmvitcompress.planning import Plan, plan_arch
from mmvitcompress.tokens import TokenMerging, TokenSpec
from mmvitcompress.tokens.method import add_methods


def plan(
    model: nn.Module | str | Path | Arch,
    target: float,
    img_size: int | tuple[int, int] | None = None,
    channels: float = 0.0,
    method: str = TokenMerging.key,
    calibration: str | Path | Tensor | Mapping | None = None,
) -> Plan:
    """Where to merge, and how much channels must save, for a target.

    ``compress(model, **plan(model, 0.45).arguments())`` does it; for another
    image size say ``img_size`` to both.

    Args:
        model: As for :func:`~mmvitcompress.api.compress`, or an arch or its
            name; nothing is downloaded.
        target: Reduction to reach, as a fraction of the dense MACs.
        img_size: Image size (H, W) at which the model will be used, in
            pixels. Defaults to the model's.
        channels: The channels' share of the reduction, in [0, 1]. Defaults to
            0: tokens are merged only.
        method: Key of the token method. Defaults to merging neighbours.
        calibration: Images, as for :func:`~mmvitcompress.api.compress`, by
            whose feature error the method is planned (LFE: how many patches
            each block keeps, by VTC-LFC's bottom-up cascade): up to a thousand
            passes of all of them. Defaults to none: by MACs alone.

    Raises:
        ConfigError: If an argument is out of range, the target out of reach
            (says what is reachable), or the model can't be compressed.
    """
    arch, classes = _shape(model)
    error_of = None if calibration is None else _errors(model, calibration)
    return plan_arch(
        arch,
        target,
        img_size or arch.img_size,
        channels,
        classes,
        method=method,
        error_of=error_of,
    )


def _errors(model, calibration) -> Callable[[TokenSpec], float]:
    """What the features of a model miss with a token method."""
    if isinstance(model, Arch) or model in ARCHS:
        raise ConfigError(
            'calibration needs weights, but an arch has none: give a model '
            'or a checkpoint'
        )
    images = Calibration(compress(model), calibration)
    images.net.method_keys = ()  # plans are for the dense model
    net = copy.deepcopy(images.net)

    def error_of(spec: TokenSpec) -> float:
        arch = net.arch.with_reductions(spec)
        net.method_keys = add_methods(net, arch, arch.depth)
        return images.error(net, images.images)['feature_error']

    return error_of


def _shape(model) -> tuple[Arch, int]:
    """The arch of a model, and how many classes it tells apart."""
    if isinstance(model, Arch):
        return model, 0
    if isinstance(model, CompressedModel):
        return model.arch, model.num_classes
    if isinstance(model, str) and model in ARCHS:
        return get_arch(model), 0
    if isinstance(model, str | Path):
        if Path(model).is_file():
            source = read(model)
            return source.arch, source.options['num_classes']
        with torch.device('meta'):  # its shape is enough
            model = create(str(model), pretrained=False)
    source = describe(model)
    return source.arch, source.options['num_classes']
