"""Blocks and life predictors folded: fewer layers, the same numbers."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.models.layers.blocks import Attention, Block

WIDTH_STEP = 8
"""Channels of which CUDA's kernels want a multiple in half precision: they
load 16 bytes at once."""


def fold_scales(block: Block) -> None:
    """Fold layer scales and skip scale into both branches, in place."""
    for name, linear in (('ls1', block.attn.proj), ('ls2', block.mlp.fc2)):
        factor = getattr(
            getattr(block, name), 'gamma', linear.bias.new_ones(1)
        )
        factor = factor / block.skip_scale
        linear.weight.mul_(factor[:, None])
        linear.bias.mul_(factor)
        setattr(block, name, nn.Identity())
    block.skip_scale = 1.0


def pad_widths(block: Block, step: int = WIDTH_STEP) -> None:
    """Fill up the widths of a block with zeros, in place.

    Queries, keys and values get one width, as flash attention wants it; a
    hidden channel whose weights are zero is zero after the activation, too.

    Args:
        block: Of a ViT.
        step: Of what widths become multiples. Defaults to 8.
    """
    attn, mlp = block.attn, block.mlp
    width = max(attn.qk_dim, attn.v_dim)
    width += -width % step
    if attn.q_norm is None or width == attn.qk_dim:  # norms see no zeros
        _pad_heads(attn, width)
    gap = -mlp.fc1.out_features % step
    mlp.fc1 = _linear(
        F.pad(mlp.fc1.weight, (0, 0, 0, gap)), F.pad(mlp.fc1.bias, (0, gap))
    )
    mlp.fc2 = _linear(F.pad(mlp.fc2.weight, (0, gap)), mlp.fc2.bias)


def _pad_heads(attn: Attention, width: int) -> None:
    heads = attn.num_heads

    def padded(x: Tensor) -> Tensor:
        """(h · own width, …) → (h · width, …)."""
        x = x.unflatten(0, (heads, -1)).movedim(1, -1)
        x = F.pad(x, (0, width - x.shape[-1]))
        return x.movedim(-1, 1).flatten(0, 1)

    weight, bias = (
        None
        if x is None
        else torch.cat(list(map(padded, x.split(attn.split))))
        for x in (attn.qkv.weight, attn.qkv.bias)
    )
    attn.qkv = _linear(weight, bias)
    attn.proj = _linear(padded(attn.proj.weight.t()).t(), attn.proj.bias)
    attn.qk_dim = attn.v_dim = width
    attn.split = [heads * width] * 3


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(
        weight.shape[1], weight.shape[0], bias is not None, device='meta'
    )
    linear.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear.eval()
