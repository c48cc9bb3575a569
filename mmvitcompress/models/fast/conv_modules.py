"""MMCV's convolution modules at inference: convolution and norm in one.

Batch norm with fixed statistics is a scale and an offset of each channel,
which the convolution before it can take over. The modules stay as they are:
weights are folded anew in each call, which costs little beside the maps.
"""

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvitcompress.models.fast.conv import conv, is_plain
from mmvitcompress.models.fast.winograd import reorders
from mmvitcompress.models.layers.hooked import is_bare


def run_conv_module(module: ConvModule, x: Tensor) -> Tensor:
    """What ``module(x)`` returns, up to rounding; faster at inference."""
    if not reorders(x) or not can_fold(module):
        return module(x)
    return activated(module, conv(x, *folded(module)))


def can_fold(module: ConvModule) -> bool:
    """Whether :func:`folded` is all that a module does before activating."""
    if (
        module.order != ('conv', 'norm', 'act')
        or module.with_spectral_norm
        or not is_plain(module.conv)
        or not is_bare(module)
    ):
        return False
    norm = module.norm
    return not module.with_norm or (
        isinstance(norm, _BatchNorm)
        and not norm.training
        and norm.running_mean is not None
    )


def folded(module: ConvModule) -> tuple[Tensor, Tensor | None]:
    """Weight and bias that do what convolution and batch norm do.

    Returns:
        (O, C, k, k) and (O), or None for a module without norm and bias.
    """
    weight, bias = module.conv.weight, module.conv.bias
    if not module.with_norm:
        return weight, bias
    norm = module.norm
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    offset = -norm.running_mean if bias is None else bias - norm.running_mean
    offset = offset * scale
    if norm.bias is not None:
        offset = offset + norm.bias
    return weight * scale.view(-1, 1, 1, 1), offset


def activated(module: ConvModule, x: Tensor) -> Tensor:
    """The module's own activation, if it has one; may overwrite ``x``."""
    if not module.with_activation:
        return x
    if type(module.activate) is nn.ReLU and not torch.is_grad_enabled():
        return x.relu_()
    return module.activate(x)
