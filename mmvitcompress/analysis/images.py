"""Images to run a model on: random, from a folder, from a config's data."""

from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, islice
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS
from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    create_transform,
)
from torch import Tensor, nn

from mmvitcompress.analysis.configs import Shape, default_shape
from mmvitcompress.analysis.inference import (
    data_samples,
    image_channels,
    padded_shape,
)
from mmvitcompress.engine.config import use_scope
from mmvitcompress.engine.launch import naming_data_errors
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.checks import check_positive
from mmvitcompress.utils.images import (
    equally_spaced,
    image_files,
    read_image,
    to_pil,
)


def make_images(
    source: str,
    config: Config,
    model: nn.Module,
    shape: Shape,
    batch_size: int,
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

    Returns:
        (B, C, H, W), normalised, padded as the model pads, on the CPU; random
        ones of as many channels as the model takes, others of 3.

    Raises:
        ConfigError: If there is nothing to take.
        DataError: If data are missing or damaged.
    """
    check_positive('batch size', batch_size)
    if source == 'random':
        generator = torch.Generator().manual_seed(0)
        size = padded_shape(model, shape)
        size = (batch_size, image_channels(model), *size)
        return torch.randn(size, generator=generator)
    if source == 'dataset':
        images = _from_dataset(config, lambda total: range(total)[:batch_size])
    else:
        images = list(map(_read, image_files(source)[:batch_size]))
    resized = [_resize(image, shape) for image in images]
    return _preprocess(model, list(islice(cycle(resized), batch_size)))


def tested_images(
    source: str,
    config: Config,
    model: nn.Module,
    count: int,
    shape: Shape | None = None,
) -> list[Tensor]:
    """Images as the network gets them where the config's model is tested.

    Args:
        source: ``'dataset'`` for the config's ``test_dataloader``; an image;
            or a folder. They are taken at equal distances.
        config: Config of the model; its test pipeline prepares images.
        model: The model; its data preprocessor normalises and pads.
        count: How many images; fewer if there are no more.
        shape: Height and width in pixels that they are resized to instead.
            Defaults to the size and aspect that the pipeline gives to each;
            to the size that the config is about if it has no pipeline.

    Returns:
        (C, H, W) each, normalised and padded, on the CPU.

    Raises:
        ConfigError: If there is nothing to take.
        DataError: If data are missing or damaged.
    """
    check_positive('count', count)
    if source == 'dataset':
        images = _from_dataset(config, lambda n: equally_spaced(n, count))
    else:
        paths = image_files(source)
        paths = [paths[i] for i in equally_spaced(len(paths), count)]
        transform = None if shape else _test_transform(config)
        if transform is None:
            shape, transform = shape or default_shape(config), _read
        with naming_data_errors():
            images = list(map(transform, paths))
    if shape:
        images = [_resize(image, shape) for image in images]
    return [_preprocess(model, [image])[0] for image in images]


def _read(path: Path) -> Tensor:
    """An image (3, h, w) of bytes, in BGR as OpenMMLab loads them."""
    return torch.from_numpy(read_image(path)).permute(2, 0, 1)


def _test_transform(config: Config) -> Callable[[Path], Tensor] | None:
    """What the config's test data do to an image file, if they do anything:
    the result is what :func:`_from_dataset` returns."""
    data = (config.get('test_dataloader') or {}).get('dataset') or {}
    if data.get('pipeline'):
        use_scope(config)
        steps = [s for s in data.pipeline if 'Annotations' not in s['type']]
        pipeline = Compose(steps)
        return lambda path: _inputs(
            pipeline(dict(img_path=str(path), img_id=0))
        )
    if data.get('transform'):
        transform = create_transform(**data.transform)
        return lambda path: transform(to_pil(read_image(path)))
    return None


def _from_dataset(
    config: Config, places: Callable[[int], Iterable[int]]
) -> list[Tensor]:
    """What the config's test data make of those images that ``places`` takes
    of their number: (3, h, w), of bytes or, from timm's, normalised."""
    loader = config.get('test_dataloader')
    if not loader:
        raise ConfigError(
            'the config has no test_dataloader to take images from; give a '
            'folder of images or random'
        )
    use_scope(config)
    with naming_data_errors():
        dataset = DATASETS.build(loader.dataset)
        return [_inputs(dataset[i]) for i in places(len(dataset))]


def _inputs(sample) -> Tensor:
    """The image of a sample; with test-time augmentation its first view."""
    inputs = sample['inputs'] if isinstance(sample, dict) else sample[0]
    return inputs[0] if isinstance(inputs, list) else inputs


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
    stacked = torch.stack(list(images))
    if stacked.dtype != torch.uint8:  # timm's pipeline has done it all
        return stacked
    samples = data_samples(model, stacked)
    if samples is None:  # nothing of OpenMMLab's: as ImageNet's classifiers
        mean, std = (
            torch.tensor(values).view(3, 1, 1)
            for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )
        return (stacked.flip(1) / 255 - mean) / std
    batch = {'inputs': list(images), 'data_samples': samples}
    return model.data_preprocessor(batch, training=False)['inputs']
