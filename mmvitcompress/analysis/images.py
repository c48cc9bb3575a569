"""Images to time a model on: random, from a folder, from a config's data."""

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from mmvitcompress.analysis.inference import (
    data_samples,
    image_channels,
    padded_shape,
)
from mmvitcompress.engine.launch import naming_data_errors
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.images import equally_spaced, image_files, read_image

Shape = tuple[int, int]


def make_images(
    source: str,
    config: Config,
    model: nn.Module,
    shape: Shape,
    batch_size: int,
    spread: bool = False,
) -> Tensor:
    """A batch as the network of ``model`` takes it.

    Args:
        source: ``'random'``; ``'dataset'`` for the first images of the
            config's ``test_dataloader``; an image; or a folder, whose images
            are taken by name. If there are too few, they are repeated.
        config: Config of the model.
        model: The model; its data preprocessor normalises and pads.
        shape: Height and width in pixels that images are resized to.
        batch_size: Number of images B.
        spread: Whether to take images at equal distances over a data set or
            folder, not the first ones. Defaults to False.

    Returns:
        (B, C, H, W), normalised, padded as the model pads, on the CPU; random
        ones of as many channels as the model takes, others of 3.

    Raises:
        ConfigError: If there is nothing to take.
        DataError: If data are missing or damaged.
    """
    if batch_size < 1:
        raise ConfigError(
            f'batch size must be at least 1, but got {batch_size}'
        )
    if source == 'random':
        generator = torch.Generator().manual_seed(0)
        size = padded_shape(model, shape)
        size = (batch_size, image_channels(model), *size)
        return torch.randn(size, generator=generator)
    if source == 'dataset':
        images = _from_dataset(config, batch_size, spread)
    else:
        images = _from_folder(source, batch_size, spread)
    resized = [_resize(image, shape) for image in images]
    return _preprocess(model, list(islice(cycle(resized), batch_size)))


def _places(total: int, count: int, spread: bool) -> list[int]:
    """Which ``count`` of ``total`` images to take; all if there are fewer."""
    if spread:
        return equally_spaced(total, count)
    return list(range(min(total, count)))


def _from_folder(folder: str, count: int, spread: bool) -> list[Tensor]:
    """Images (3, h, w) of bytes, in BGR as OpenMMLab loads them."""
    paths = image_files(folder)
    images = []
    for path in (paths[i] for i in _places(len(paths), count, spread)):
        array = np.array(read_image(path))
        images.append(torch.from_numpy(array).permute(2, 0, 1).flip(0))
    return images


def _from_dataset(config: Config, count: int, spread: bool) -> list[Tensor]:
    """What the pipeline of the config's test data makes of its first images:
    (3, h, w), of bytes or, from timm's pipelines, normalised."""
    loader = config.get('test_dataloader')
    if not loader:
        raise ConfigError(
            'the config has no test_dataloader to take images from; give a '
            'folder of images or random'
        )
    init_default_scope(config.get('default_scope') or 'mmengine')
    with naming_data_errors():
        dataset = DATASETS.build(loader.dataset)
        places = _places(len(dataset), count, spread)
        samples = [dataset[i] for i in places]
    inputs = [
        sample['inputs'] if isinstance(sample, dict) else sample[0]
        for sample in samples
    ]
    # with test-time augmentation there are several views of each
    return [i[0] if isinstance(i, list) else i for i in inputs]


def _resize(image: Tensor, shape: Shape) -> Tensor:
    if image.shape[-2:] == shape:
        return image
    resized = F.interpolate(
        image[None].float(), shape, mode='bilinear', antialias=True
    )[0]
    if image.dtype == torch.uint8:
        return resized.round().clamp(0, 255).byte()
    return resized


def _preprocess(model: nn.Module, images: Sequence[Tensor]) -> Tensor:
    if images[0].dtype != torch.uint8:  # timm's pipeline has done it all
        return torch.stack(list(images))
    samples = data_samples(model, torch.stack(list(images)))
    if samples is None:  # nothing of OpenMMLab's: as ImageNet's classifiers
        mean, std = (
            torch.tensor(values).view(3, 1, 1)
            for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )
        return (torch.stack(list(images)).flip(1) / 255 - mean) / std
    batch = {'inputs': list(images), 'data_samples': samples}
    return model.data_preprocessor(batch, training=False)['inputs']
