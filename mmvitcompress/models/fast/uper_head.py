"""UPerHead at a fraction of its cost, with the same weights and numbers."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import UPerHead
from mmseg.models.utils import resize
from torch import Tensor

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.fast.conv import is_plain, use_fast_convs
from mmvitcompress.models.fast.conv_modules import (
    activated,
    can_fold,
    folded,
    run_conv_module,
)
from mmvitcompress.models.fast.upsampled_conv import conv_of_upsampled
from mmvitcompress.models.fast.winograd import winograd_conv, winograd_pays
from mmvitcompress.models.layers.hooked import has_hooks, is_bare
from mmvitcompress.registry import MODELS


@MODELS.register_module()
class FastUPerHead(UPerHead):
    """MMSegmentation's UPerHead, computed in another order.

    Most of UPerHead's work is one 3×3 convolution over four maps, three of
    which were merely upsampled before. Here these three are convolved at their
    own resolution (see
    :func:`~mmvitcompress.models.fast.upsampled_conv.conv_of_upsampled`), and
    the four are never put together, which spares memory as well; the same
    holds for the pooled maps. At inference on a CPU batch norm is folded and
    3×3 convolutions take a quarter of their multiplications
    (:mod:`~mmvitcompress.models.fast.winograd`). Arguments, state dict,
    outputs and gradients are those of UPerHead, up to rounding. Parts that
    carry hooks are called as UPerHead calls them.

    Raises:
        ConfigError: If ``conv_cfg`` makes the convolutions other ones.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for module in (self.bottleneck, self.fpn_bottleneck):
            if not is_plain(module.conv):
                raise ConfigError(
                    'FastUPerHead takes the last convolution apart, which '
                    'must be a plain Conv2d, but conv_cfg made it '
                    f'{module.conv}: use UPerHead'
                )
        use_fast_convs(self.conv_seg)

    def psp_forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps of several strides → (B, channels, h, w) of the last one."""
        if has_hooks(self.psp_modules):
            return super().psp_forward(inputs)
        x = inputs[-1]
        return self._conv_of_all(
            [x, *(pool(x) for pool in self.psp_modules)], self.bottleneck
        )

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps of several strides → (B, channels, H, W) at the first's."""
        inputs = self._transform_inputs(inputs)
        maps = [
            run_conv_module(module, x)
            for module, x in zip(self.lateral_convs, inputs[:-1])
        ]
        maps.append(self.psp_forward(inputs))
        for fine in reversed(range(len(maps) - 1)):
            size = maps[fine].shape[2:]
            maps[fine] = maps[fine] + self._resize(maps[fine + 1], size)
        top = maps.pop()
        maps = [
            run_conv_module(module, x)
            for module, x in zip(self.fpn_convs, maps)
        ]
        return self._conv_of_all([*maps, top], self.fpn_bottleneck)

    def _resize(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return resize(
            x,
            size=size,
            mode='bilinear',
            align_corners=self.align_corners,
        )

    def _conv_of_all(
        self, maps: Sequence[Tensor], module: ConvModule
    ) -> Tensor:
        """``module`` of all maps, put together at the size of the first."""
        size = tuple(maps[0].shape[2:])
        if not is_bare(module) or not is_plain(module.conv):
            resized = (self._resize(x, size) for x in maps[1:])
            return module(torch.cat([maps[0], *resized], 1))
        fold = can_fold(module)
        weight, bias = (
            folded(module) if fold else (module.conv.weight, module.conv.bias)
        )
        weights = weight.split([x.shape[1] for x in maps], dim=1)
        pairs = list(zip(maps, weights))
        if winograd_pays(maps[0], weights[0], size):
            # at twice the size, both ways take as many products, but here
            # the results are brought back together
            near = [pair for pair in pairs if _is_near(pair[0], size)]
            pairs = [pair for pair in pairs if not _is_near(pair[0], size)]
            out = winograd_conv(*zip(*near), size, bias, self.align_corners)
        else:
            out = F.conv2d(maps[0], weights[0], bias, padding=1)
            pairs = pairs[1:]
        for x, weight in pairs:
            out = out + conv_of_upsampled(x, weight, size, self.align_corners)
        if module.with_norm and not fold:
            out = module.norm(out)
        return activated(module, out)


def _is_near(x: Tensor, size: tuple[int, int]) -> bool:
    """Whether a map has at least half of the rows and columns, and no more."""
    return all(own <= side <= 2 * own for own, side in zip(x.shape[2:], size))
