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
    hidden channel whose weights are zero is zero after activation or gate,
    too. What a norm within the block sees stays as wide as it is.

    Args:
        block: Of a ViT.
        step: Of what widths become multiples. Defaults to 8.
    """
    attn, mlp = block.attn, block.mlp
    width = max(attn.qk_dim, attn.v_dim)
    width += -width % step
    seen = attn.norm is not None and width != attn.v_dim
    seen |= attn.q_norm is not None and width != attn.qk_dim
    if not seen:
        _pad_heads(attn, width)
    hidden = mlp.fc2.in_features
    if isinstance(mlp.norm, nn.Identity) and hidden % step:
        parts = mlp.fc1.out_features // hidden
        wide = hidden + -hidden % step
        weight, bias = mlp.fc1.weight, mlp.fc1.bias
        mlp.fc1 = _linear(*(_padded(x, parts, wide) for x in (weight, bias)))
        weight = F.pad(mlp.fc2.weight, (0, wide - hidden))
        mlp.fc2 = _linear(weight, mlp.fc2.bias)


def _padded(x: Tensor, parts: int, width: int) -> Tensor:
    """(parts · own width, …) → (parts · width, …)."""
    x = x.unflatten(0, (parts, -1)).movedim(1, -1)
    x = F.pad(x, (0, width - x.shape[-1]))
    return x.movedim(-1, 1).flatten(0, 1)


def _pad_heads(attn: Attention, width: int) -> None:
    heads = attn.num_heads
    # partners that are turned stay half a head apart
    halves = 2 if attn.pairs else 1
    width += -width % halves
    parts = [heads * halves] * 2 + [heads]
    widths = [width // halves] * 2 + [width]

    def padded(x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        rows = zip(x.split(attn.split), parts, widths)
        return torch.cat([_padded(*each) for each in rows])

    attn.qkv = _linear(padded(attn.qkv.weight), padded(attn.qkv.bias))
    columns = _padded(attn.proj.weight.t(), heads, width).t()
    attn.proj = _linear(columns, attn.proj.bias)
    index = attn.rope_index
    if attn.pairs and width > attn.qk_dim:
        if index is None:
            index = torch.arange(attn.pairs, device=columns.device)
            index = index.repeat(heads, 1)
        # zeros may be turned by any frequency
        attn.rope_index = F.pad(index, (0, width // 2 - index.shape[1]))
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
