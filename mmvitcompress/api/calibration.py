"""Compressing by what the model does on images, without training."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mmvitcompress.api.model import CompressedModel
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.windows import quarter_ends
from mmvitcompress.channels.compactors import Kinds
from mmvitcompress.channels.compensation import (
    Moments,
    input_moments,
    means_of,
)
from mmvitcompress.channels.importance import low_pass, taylor
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.layers.features import (
    Scale,
    error_sums,
    feature_error,
    full_patches,
    normalised,
)
from mmvitcompress.models.vit import ViT
from mmvitcompress.utils.checks import check_positive, pair
from mmvitcompress.utils.image_folder import UnlabelledImages
from mmvitcompress.utils.images import equally_spaced

COUNT = 100  # images to calibrate on
BATCH = 8
MOST = 16  # patches a side, where nothing is said: what is larger takes long


class Calibration:
    """Images, and what the model does on them before it is compressed.

    A fifth of the images measures the error and is calibrated on by nothing
    else, if there are five.

    Args:
        model: What is to be compressed; stays as it is.
        images: A folder of images; images (n, 3, H, W), normalised; or
            ``dict(images=…, count=100, img_size=…)``, whose size (H, W)
            defaults to the model's, at most 16 patches a side.

    Raises:
        ConfigError: If it is none of these.
        DataError: If there are no images, or one can't be read.
    """

    def __init__(
        self, model: CompressedModel, images: str | Path | Tensor | Mapping
    ):
        self.net = model.backbone
        arch = model.arch
        self.prefix = arch.num_prefix_tokens
        self.indices = quarter_ends(arch.depth)
        options = dict(images) if isinstance(images, Mapping) else {}
        images = options.pop('images', images)
        if isinstance(images, str | Path):
            images = _read(images, model, **options)
        elif options or not isinstance(images, Tensor) or images.dim() != 4:
            raise ConfigError(
                'calibration must be a folder of images, images (n, 3, H, W), '
                'or dict(images=folder, count=…, img_size=…), but got '
                f'{type(images).__name__} {sorted(options)}'
            )
        held = torch.arange(len(images)) % 5 == 4
        self.images = images[~held] if held.any() else images
        self.held = images[held] if held.any() else images

    def _like(self, images: Tensor) -> Tensor:
        return images.to(self.net.patch_embed.proj.weight)

    def _batches(self, images: Tensor, size: int = BATCH) -> Iterator[Tensor]:
        yield from map(self._like, images.split(size))

    def _projections(self, net: ViT) -> Iterator[Tensor]:
        """Random projections of the features, one for each image.

        Their squared derivatives are, in expectation, those of the map loss
        from the net's own features to second order (its Gauss-Newton form);
        the loss itself has no gradient there.
        """
        generator = torch.Generator().manual_seed(0)
        for image in self._batches(self.images, 1):
            total = 0.0
            for tokens, state in net.intermediates(image, self.indices):
                x = full_patches(tokens, state, self.prefix)
                x = Scale.of(x).apply(x, x.detach())
                signs = torch.randint(2, x.shape, generator=generator) * 2 - 1
                total = total + (x * signs.to(x)).sum() / x.numel() ** 0.5
            yield total / len(self.indices) ** 0.5

    def moments(self, net: ViT) -> list[tuple[Moments, Moments]]:
        """See :func:`~mmvitcompress.channels.compensation.input_moments`."""
        return input_moments(net.eval(), self._batches(self.images))

    def _low_frequencies(self, net: ViT) -> Iterator[Tensor]:
        """How far [CLS] (or the mean) of low-pass filtered images is from
        what the dense net makes of the images, one loss for each."""
        for image in self._batches(self.images, 1):
            with torch.no_grad():
                whole = self.net.eval().intermediates(image, self.indices)
            seen = net.intermediates(low_pass(image), self.indices)
            misses = [
                self._summary(ours) - self._summary(theirs)
                for (ours, _), (theirs, _) in zip(seen, whole)
            ]
            yield torch.stack(misses).square().mean()

    def _summary(self, tokens: Tensor) -> Tensor:
        return normalised(tokens[:, 0] if self.prefix else tokens.mean(1))

    def scores(
        self, net: ViT, moments: list, criterion: str = 'taylor'
    ) -> list[Kinds]:
        """How much removing each channel would change, by first order.

        Args:
            net: What is to be pruned.
            moments: What :meth:`moments` says of it.
            criterion: 'taylor', what is added to the map loss; 'lfs', what is
                to a loss on low-pass filtered images. Defaults to 'taylor'.
        """
        known = dict(taylor=self._projections, lfs=self._low_frequencies)
        losses = known[criterion](net.eval())
        return taylor(net, losses, means_of(moments))

    @torch.no_grad()
    def error(
        self, net: nn.Module, images: Tensor | None = None
    ) -> dict[str, float]:
        """The relative error of a net's features on images, by default on
        those that nothing else is calibrated on; see
        :func:`~mmvitcompress.models.layers.features.feature_error`."""
        nets, sums = (net.eval(), self.net.eval()), []
        for batch in self._batches(self.held if images is None else images):
            outputs = (n.intermediates(batch, self.indices) for n in nets)
            sums.append(error_sums(*outputs, self.prefix))
        return feature_error(torch.cat(sums))


def _read(
    folder: str | Path,
    model: CompressedModel,
    count: int = COUNT,
    img_size: int | tuple[int, int] | None = None,
) -> Tensor:
    """Images (n, 3, H, W) of a folder, equally spaced by their names."""
    check_positive('calibration.count', count)
    size = most_patches(model.arch) if img_size is None else img_size
    data = UnlabelledImages(
        folder,
        dict(
            input_size=(3, *pair('calibration.img_size', size)),
            crop_pct=1.0,
            interpolation='bicubic',
            **normalisation_of(model),
        ),
    )
    # for each four to calibrate on one to measure with
    places = equally_spaced(len(data), count + count // 4)
    return torch.stack([data[place]['inputs'] for place in places])


def most_patches(arch: ViTArch) -> tuple[int, int]:
    """The image size (H, W) of an arch, at most 16 patches a side, in
    pixels."""
    height, width = arch.img_size
    most = MOST * arch.patch_size
    return min(height, most), min(width, most)


def normalisation_of(model: CompressedModel) -> dict:
    """Mean and deviation that a model's images are normalised by; ImageNet's
    where it doesn't say."""
    config = model.pretrained_cfg
    return {
        key: tuple(config[key]) for key in ('mean', 'std') if key in config
    }
