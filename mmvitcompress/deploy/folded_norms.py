"""Batch norms of trained models, folded into the convolutions before them.

Only where the code says that one follows the other: in sequences, in MMCV's
``ConvModule`` and in LV-ViT's stem. All other batch norms stay.
"""

from collections.abc import Iterator
from itertools import pairwise

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmvitcompress.models.fast.conv import FastConv2d
from mmvitcompress.models.layers.stems import ConvStem

CONVS = (nn.Conv2d, FastConv2d, nn.ConvTranspose2d)


def fold_batch_norms(model: nn.Module) -> int:
    """Fold batch norms in evaluation mode into convolutions, in place.

    Returns:
        How many were folded.
    """
    count = 0
    for module in list(model.modules()):
        for conv, norm in list(_neighbours(module)):
            first, second = getattr(module, conv), getattr(module, norm)
            if not _foldable(first, second):
                continue
            transposed = isinstance(first, nn.ConvTranspose2d)
            fused = fuse_conv_bn_eval(first, second, transposed)
            setattr(module, conv, fused.requires_grad_(False))
            if getattr(module, 'with_norm', False):
                module.with_norm = False  # a ConvModule then skips it
            setattr(module, norm, nn.Identity().eval())
            count += 1
    return count


def _neighbours(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of children of which the second works on the first's output."""
    if isinstance(module, nn.Sequential):
        yield from pairwise(module._modules)
    elif isinstance(module, ConvStem):
        yield from ((f'conv{i}', f'bn{i}') for i in (1, 2, 3))
    elif _is_conv_module(module) and module.with_norm:
        at = {name: index for index, name in enumerate(module.order)}
        if at['norm'] == at['conv'] + 1 and not module.with_spectral_norm:
            yield 'conv', module.norm_name


def _is_conv_module(module: nn.Module) -> bool:
    from mmcv.cnn import ConvModule

    return isinstance(module, ConvModule)


def _foldable(conv: nn.Module, norm: nn.Module) -> bool:
    return (
        type(conv) in CONVS
        and isinstance(norm, _BatchNorm)
        and norm.track_running_stats
        and (conv.groups == 1 or not isinstance(conv, nn.ConvTranspose2d))
    )
