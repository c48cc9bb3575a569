"""Trained models to look into, and pictures to show them."""

from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from numpy import ndarray
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from mmvitcompress.analysis.candidates import build_candidate, load_candidate
from mmvitcompress.analysis.configs import as_shape, default_shape
from mmvitcompress.analysis.images import make_images
from mmvitcompress.channels import is_compactor
from mmvitcompress.checkpoints.file import read_checkpoint
from mmvitcompress.checkpoints.shape import require_whole
from mmvitcompress.engine.export import load_trained
from mmvitcompress.errors import ConfigError
from mmvitcompress.visualization.running import backbone_of


class Source(NamedTuple):
    """Where pictures come from.

    Attributes:
        images: An image, a folder of images, or 'dataset' for the config's
            test data.
        count: How many; they are taken at equal distances.
        shape: Height and width that they are resized to, in pixels; None for
            what the config tells.
    """

    images: str = 'dataset'
    count: int = 4
    shape: tuple[int, ...] | None = None


def load_model(
    path: str,
    checkpoint: str | None = None,
    options: dict | None = None,
    whole: bool = False,
) -> tuple[Config, nn.Module]:
    """A config and its model with weights, in evaluation mode.

    Args:
        path: The config.
        checkpoint: Of a training run, one that prunes channels included, or
            what tools/export_pruned.py has written. Defaults to random
            weights.
        options: Values of the config to override, by dotted key.
        whole: Whether the head needs weights, too. Defaults to False.

    Raises:
        ConfigError: If the config can't be read.
        CheckpointError: If the checkpoint is missing or of another model.
    """
    config = load_candidate(path, options)
    if checkpoint is None:
        return config, build_candidate(config).eval()
    state_dict, _ = read_checkpoint(checkpoint)
    if whole:
        require_whole(state_dict, checkpoint)
    if any(map(is_compactor, state_dict)):
        return config, load_trained(config, checkpoint)
    return config, build_candidate(config, checkpoint).eval()


def load_images(config: Config, model: nn.Module, source: Source) -> Tensor:
    """Images (B, 3, H, W) as the network takes them.

    Raises:
        ConfigError: If there is nothing to take.
        DataError: If data are missing or damaged.
    """
    shape = source.shape and as_shape(source.shape)
    images = make_images(
        source.images,
        config,
        model,
        shape or _usual_shape(config, model),
        source.count,
        spread=True,
    )
    # where there are too few, make_images repeats them
    new = [
        i
        for i in range(len(images))
        if not any(torch.equal(images[i], images[j]) for j in range(i))
    ]
    return images[new]


def _usual_shape(config: Config, model: nn.Module) -> tuple[int, int]:
    """What the config tells, else what the backbone was made for."""
    try:
        return default_shape(config)
    except ConfigError:
        return backbone_of(model).arch.img_size


def to_pictures(images: Tensor, model: nn.Module, config: Config) -> list:
    """Normalised images as people see them.

    Args:
        images: (B, 3, H, W), as :func:`load_images` returns them.
        model: The model; its data preprocessor knows mean and deviation.
        config: Its config, whose data know them otherwise.

    Returns:
        RGB (H, W, 3), uint8, padding included.
    """
    preprocessor = getattr(model, 'data_preprocessor', None)
    if getattr(preprocessor, 'mean', None) is not None:
        mean, std = preprocessor.mean, preprocessor.std
    else:
        data = (config.get('test_dataloader') or {}).get('dataset') or {}
        transform = data.get('transform') or {}
        mean = transform.get('mean') or IMAGENET_DEFAULT_MEAN
        std = transform.get('std') or IMAGENET_DEFAULT_STD
        mean, std = (255 * torch.tensor(values) for values in (mean, std))
    mean, std = (v.view(3, 1, 1).to(images) for v in (mean, std))
    pixels = (images * std + mean).round().clamp(0, 255).byte()
    # OpenMMLab loads BGR, which the preprocessor may leave as it is
    turned = getattr(preprocessor, 'channel_conversion', False)  # mmseg
    turned = turned or getattr(preprocessor, '_channel_conversion', False)
    if hasattr(preprocessor, 'mean') and not turned:
        pixels = pixels.flip(1)
    return [_hwc(each) for each in pixels]


def _hwc(pixels: Tensor) -> ndarray:
    return np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy())
