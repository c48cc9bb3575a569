"""Convolutions that pick the fastest way to their numbers.

At inference on a CPU a 1×1 convolution of a map in channels-last order, as
those of the pyramid are, is one matrix product, and a 3×3 one can do with a
quarter of its multiplications (:mod:`~mmvitcompress.models.fast.winograd`).
Elsewhere they are the convolutions that PyTorch has.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.models.fast.winograd import (
    reorders,
    winograd_conv,
    winograd_pays,
)
from mmvitcompress.registry import MODELS


@MODELS.register_module()
class FastConv2d(nn.Conv2d):
    """``Conv2d`` with the same parameters, numbers and gradients.

    For the ``conv_cfg`` of necks and heads:
    ``conv_cfg=dict(type='mmvitcompress.FastConv2d')``. Other convolutions
    than plain ones (:func:`is_plain`) run as always.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, O, H', W')."""
        if x.dim() == 4 and is_plain(self):
            return conv(x, self.weight, self.bias)
        return super().forward(x)


def use_fast_convs(model: nn.Module) -> int:
    """Turn all plain convolutions of a model into :class:`FastConv2d`.

    In place; parameters, their names and hooks stay.

    Returns:
        How many there were.
    """
    found = [
        module
        for module in model.modules()
        if type(module) is nn.Conv2d and is_plain(module)
    ]
    for module in found:
        module.__class__ = FastConv2d
    return len(found)


def is_plain(module: nn.Module) -> bool:
    """Whether this is a convolution of kernel 1 or 3 that keeps the size of
    its map, with nothing special about it."""
    return (
        type(module) in (nn.Conv2d, FastConv2d)
        and module.kernel_size in ((1, 1), (3, 3))
        and module.padding == (module.kernel_size[0] // 2,) * 2
        and module.stride == module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == 'zeros'
    )


def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``conv2d`` of kernel 1 or 3 that keeps the size of its map.

    Args:
        x: (B, C, H, W).
        weight: (O, C, k, k).
        bias: (O). Defaults to none.

    Returns:
        (B, O, H, W).
    """
    kernel_size = weight.shape[2]
    if kernel_size == 1 and reorders(x):
        x = F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias)
        return x.permute(0, 3, 1, 2)
    if kernel_size == 3 and winograd_pays(x, weight, x.shape[2:]):
        return winograd_conv([x], [weight], tuple(x.shape[2:]), bias)
    return F.conv2d(x, weight, bias, padding=kernel_size // 2)
