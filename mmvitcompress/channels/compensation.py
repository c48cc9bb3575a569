"""What removed channels gave to the next layer, given by those that stay.

A layer y = W·h + b loses the inputs h_R. On average they are an affine
function of those that are kept, h_R ≈ μ_R + A·(h_K − μ_K), by least squares:
W_K becomes W_K + W_R·A, and b becomes b + W_R·(μ_R − A·μ_K). What is constant
is thus replaced exactly; inputs that the others don't tell leave their mean.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmvitcompress.channels.compactors import Kinds, transformer_blocks
from mmvitcompress.channels.importance import Means

LAYERS = ('attn.proj', 'mlp.fc2')
RIDGE = 1e-3
"""What is added to the variances, as a fraction of their mean."""


class Moments(NamedTuple):
    """Mean (F) and covariance (F, F) of a layer's inputs, float64."""

    mean: Tensor
    covariance: Tensor


@torch.no_grad()
def input_moments(
    model: nn.Module, batches: Iterable[Tensor]
) -> list[tuple[Moments, Moments]]:
    """Moments of what ``attn.proj`` and ``mlp.fc2`` of each block are given.

    Args:
        model: Run in the mode that it is in.
        batches: Images (B, 3, H, W).
    """
    layers = [
        block.get_submodule(name)
        for _, block in transformer_blocks(model)
        for name in LAYERS
    ]
    sums = {id(layer): [0, 0.0, 0.0] for layer in layers}

    def note(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        x = inputs[0].flatten(0, -2)
        x = x if x.dtype == torch.double else x.float()
        total = sums[id(layer)]
        total[0] += len(x)
        total[1] = total[1] + x.sum(0, dtype=torch.double)
        total[2] = total[2] + x.T @ x

    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        for images in batches:
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    found = [_moments(*sums[id(layer)]) for layer in layers]
    return [*zip(found[::2], found[1::2])]


def _moments(count: int, total: Tensor, products: Tensor) -> Moments:
    mean = total / count
    return Moments(mean, products.double() / count - torch.outer(mean, mean))


def means_of(moments: Sequence[tuple[Moments, Moments]]) -> list[Means]:
    """The means alone, for a criterion."""
    return [Means(*(m.mean for m in block)) for block in moments]


@torch.no_grad()
def compensate(
    weight: Tensor, bias: Tensor, moments: Moments, kept: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight (out, kept) and bias (out) of a layer that loses inputs.

    Args:
        weight: (out, F), before.
        bias: (out).
        moments: Of its F inputs.
        kept: (F), bool.
    """
    mean, covariance = moments
    used, lost = weight.double()[:, kept], weight.double()[:, ~kept]
    own = covariance[kept][:, kept]
    ridge = RIDGE * own.diagonal().mean() + torch.finfo(torch.double).tiny
    own = own + ridge * torch.eye(len(own), dtype=own.dtype, device=own.device)
    told = torch.linalg.solve(own, covariance[kept][:, ~kept]).T
    new_bias = bias + lost @ (mean[~kept] - told @ mean[kept])
    return (used + lost @ told).to(weight.dtype), new_bias.to(bias.dtype)


def compensate_all_(
    tensors: dict[str, Tensor],
    model: nn.Module,
    moments: Sequence[tuple[Moments, Moments]],
    kept: Sequence[Kinds],
) -> None:
    """Let the layers after all removed channels make up for them, in place.

    Args:
        tensors: Of the narrower model, as ``fold`` returns them.
        model: The model before.
        moments: Its :func:`input_moments`.
        kept: Masks of what stays.
    """
    for (name, block), pair, mask in zip(
        transformer_blocks(model), moments, kept
    ):
        for part, own, stays in zip(LAYERS, pair, (mask.v, mask.mlp)):
            layer = block.get_submodule(part)
            stays = torch.from_numpy(stays.ravel()).to(layer.weight.device)
            if layer.bias is None or stays.all():
                continue
            weight, bias = compensate(layer.weight, layer.bias, own, stays)
            tensors[f'{name}.{part}.weight'] = weight
            tensors[f'{name}.{part}.bias'] = bias
