"""UPerHead at a fraction of its cost, with the same weights and numbers."""

import torch.nn.functional as F
from mmseg.models.decode_heads import UPerHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.upsampled_conv import conv_of_upsampled
from mmvitcompress.registry import MODELS


@MODELS.register_module()
class FastUPerHead(UPerHead):
    """MMSegmentation's UPerHead, computed in another order.

    Most of UPerHead's work is one 3×3 convolution over four maps, three of
    which were merely upsampled before. Here these three are convolved at
    their own resolution (see
    :func:`~mmvitcompress.models.upsampled_conv.conv_of_upsampled`), and the
    four are never put together, which spares memory as well. Arguments, state
    dict, outputs and gradients are those of UPerHead, up to rounding.

    Raises:
        ConfigError: If ``conv_cfg`` makes the last convolution another one.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        conv = self.fpn_bottleneck.conv
        if type(conv) is not nn.Conv2d or conv.padding_mode != 'zeros':
            raise ConfigError(
                'FastUPerHead takes the last convolution apart, which must be '
                f'a plain Conv2d, but conv_cfg made it {conv}: use UPerHead'
            )

    def _forward_feature(self, inputs: list[Tensor]) -> Tensor:
        """Maps of several strides → (B, channels, H, W) at the first's."""
        inputs = self._transform_inputs(inputs)
        maps = [conv(x) for conv, x in zip(self.lateral_convs, inputs[:-1])]
        maps.append(self.psp_forward(inputs))
        for fine in reversed(range(len(maps) - 1)):
            maps[fine] = maps[fine] + resize(
                maps[fine + 1],
                size=maps[fine].shape[2:],
                mode='bilinear',
                align_corners=self.align_corners,
            )
        top = maps.pop()
        maps = [conv(x) for conv, x in zip(self.fpn_convs, maps)]
        return self._fuse([*maps, top])

    def _fuse(self, maps: list[Tensor]) -> Tensor:
        last = self.fpn_bottleneck
        size = tuple(maps[0].shape[2:])
        weights = last.conv.weight.split(self.channels, dim=1)
        out = F.conv2d(maps[0], weights[0], last.conv.bias, padding=1)
        for x, weight in zip(maps[1:], weights[1:]):
            out = out + conv_of_upsampled(x, weight, size, self.align_corners)
        if last.with_norm:
            out = last.norm(out)
        return last.activate(out) if last.with_activation else out
