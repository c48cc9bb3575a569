"""Mask2Former as a graph: of images of one size, with no shape in a tensor.

MMDetection's pixel decoder asks tensors for the sizes of maps, and its
deformable attention for those of its levels; a graph can't be traced through
either. Where sizes are known both are plain numbers.
"""

from collections.abc import Sequence

import torch
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttention,
    multi_scale_deformable_attn_pytorch,
)
from mmdet.models.layers import MSDeformAttnPixelDecoder
from torch import Tensor
from torch.nn import functional as F


def decode_pixels(
    decoder: MSDeformAttnPixelDecoder, levels: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """MMDetection's pixel decoder with plain numbers for sizes.

    Args:
        decoder: Whose modules are run.
        levels: Maps (B, C, h, w), the finest first.

    Returns:
        Features of masks (B, C, h, w) of the finest level, and those of each
        scale, the coarsest first.
    """
    count = decoder.num_encoder_levels
    attended = list(reversed(levels))[:count]
    sizes = [tuple(map(int, level.shape[-2:])) for level in attended]
    batch = levels[0].shape[0]
    queries, positions, centres = [], [], []
    for i, (level, size) in enumerate(zip(attended, sizes)):
        everywhere = level.new_zeros((batch, *size), dtype=torch.bool)
        position = decoder.postional_encoding(everywhere)  # mmdet spells so
        position = position + decoder.level_encoding.weight[i][:, None, None]
        positions.append(_tokens(position))
        queries.append(_tokens(decoder.input_convs[i](level)))
        centres.append(_centres(size, level))
    # (B, N, levels, 2): each query asks around its own place, in all levels
    places = torch.cat(centres)[None, :, None].expand(batch, -1, count, -1)
    x, position = torch.cat(queries, 1), torch.cat(positions, 1)
    for layer in decoder.encoder.layers:
        x = layer.norms[0](
            _attend(layer.self_attn, x, position, places, sizes)
        )
        x = layer.norms[1](layer.ffn(x))
    parts = x.split([height * width for height, width in sizes], 1)
    scales = [
        part.transpose(1, 2).unflatten(2, size)
        for part, size in zip(parts, sizes)
    ]
    for i in reversed(range(decoder.num_input_levels - count)):
        finer = decoder.lateral_convs[i](levels[i])
        coarser = F.interpolate(
            scales[-1], finer.shape[-2:], mode='bilinear', align_corners=False
        )
        scales.append(decoder.output_convs[i](finer + coarser))
    return decoder.mask_feature(scales[-1]), scales[: decoder.num_outs]


def _attend(
    attention: MultiScaleDeformableAttention,
    x: Tensor,
    position: Tensor,
    places: Tensor,
    sizes: list[tuple[int, int]],
) -> Tensor:
    """Deformable attention (Zhu et al., 2021, Eq. 3) and its residual, on
    tokens (B, N, D) of all levels."""
    query = x + position
    heads = attention.num_heads, attention.num_levels, attention.num_points
    value = attention.value_proj(x).unflatten(-1, (heads[0], -1))
    offsets = attention.sampling_offsets(query).unflatten(-1, (*heads, 2))
    # offsets are in pixels of their level
    scale = x.new_tensor([[width, height] for height, width in sizes])
    places = places[:, :, None, :, None] + offsets / scale[:, None]
    weights = attention.attention_weights(query).unflatten(-1, (heads[0], -1))
    weights = weights.softmax(-1).unflatten(-1, heads[1:])
    attended = multi_scale_deformable_attn_pytorch(
        value, sizes, places, weights
    )
    return attention.output_proj(attended) + x


def _tokens(maps: Tensor) -> Tensor:
    """(B, C, h, w) → (B, h·w, C)."""
    return maps.flatten(2).transpose(1, 2)


def _centres(size: tuple[int, int], like: Tensor) -> Tensor:
    """Centres of pixels as fractions of the map, x and y, (h·w, 2)."""
    y, x = (
        (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
        for side in size
    )
    y, x = torch.meshgrid(y, x, indexing='ij')
    return torch.stack([x, y], -1).flatten(0, 1)
