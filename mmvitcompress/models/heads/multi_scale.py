"""Training at several sizes; needs mmseg."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.data_preprocessor import SegDataPreProcessor

from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import MODELS
from mmvitcompress.utils.checks import pair


@MODELS.register_module()
class MultiScalePreProcessor(SegDataPreProcessor):
    """Resizes each training batch to a size drawn by chance.

    PraNet and CASCADE step once for each of three sizes with every batch; one
    size a batch and as many more batches come to the same, and leave the loop
    alone. Each process draws for itself.

    Args:
        sizes: Heights and widths to draw from, in pixels.
        **kwargs: Those of mmseg's ``SegDataPreProcessor``.

    Raises:
        ConfigError: If there is no size, or one is none.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], **kwargs):
        if not sizes:
            raise ConfigError('sizes must name at least one (height, width)')
        super().__init__(**kwargs)
        self.sizes = [pair('sizes', size) for size in sizes]

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """See ``SegDataPreProcessor``; images become bilinear, labels
        nearest."""
        data = super().forward(data, training)
        if not training:
            return data
        size = self.sizes[int(torch.randint(len(self.sizes), ()))]
        images, samples = data['inputs'], data['data_samples']
        if tuple(images.shape[2:]) == size:
            return data
        data['inputs'] = F.interpolate(
            images, size=size, mode='bilinear', align_corners=False
        )
        for sample in samples:
            labels = sample.gt_sem_seg.data
            resized = F.interpolate(labels[None].float(), size=size)[0]
            # a new one: those of a PixelData must keep their size
            sample.gt_sem_seg = PixelData(data=resized.to(labels.dtype))
            sample.set_metainfo(dict(img_shape=size, pad_shape=size))
        return data
