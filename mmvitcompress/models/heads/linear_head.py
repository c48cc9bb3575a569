"""A linear probe as a head of MMSegmentation; needs mmseg."""

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, cat

from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import MODELS


@MODELS.register_module()
class LinearHead(BaseDecodeHead):
    """Batch norm and a 1×1 convolution on maps of several blocks.

    What frozen features of a plain ViT are measured by, as in DINOv2 (Oquab
    et al., 2023, Section 7.4): nothing is learned but a scale for each channel
    and a linear classifier.

    Args:
        in_channels: Of each map, (B, C, h, w).
        **kwargs: Those of mmseg's ``BaseDecodeHead``. ``channels`` is the sum
            of ``in_channels``, ``in_index`` all maps, ``dropout_ratio`` 0 and
            ``norm_cfg`` a ``SyncBN``.

    Raises:
        ConfigError: If ``channels`` is another number.
    """

    def __init__(self, in_channels: Sequence[int], **kwargs):
        channels = sum(in_channels)
        if kwargs.setdefault('channels', channels) != channels:
            raise ConfigError(
                f'channels must be the sum of in_channels = {channels}, but '
                f'got {kwargs["channels"]}: leave it out'
            )
        kwargs.setdefault('in_index', list(range(len(in_channels))))
        kwargs.setdefault('dropout_ratio', 0)
        kwargs.setdefault('norm_cfg', dict(type='SyncBN'))
        super().__init__(
            in_channels=list(in_channels),
            input_transform='multiple_select',
            **kwargs,
        )
        self.norm = build_norm_layer(self.norm_cfg, channels)[1]

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, h, w) → logits (B, classes, h, w).

        Maps of other sizes are brought to that of the first.
        """
        maps = self._transform_inputs(inputs)
        size = maps[0].shape[2:]
        maps = [
            m
            if m.shape[2:] == size
            else resize(m, size, mode='bilinear', align_corners=False)
            for m in maps
        ]
        return self.cls_seg(self.norm(cat(maps, 1)))
