"""Deformable attention on CPUs, by summing up rows of a table.

Each head of each query adds up a few samples of the value maps, each of which
is four neighbouring values weighted bilinearly. That is a weighted sum of rows
of one table, which PyTorch has a kernel for (embedding bags): no map is
sampled into memory, weighted there and summed up afterwards.
"""

import torch
import torch.nn.functional as F
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers import MSDeformAttnPixelDecoder
from torch import Tensor, nn

from mmvitcompress.models.fast.conv import use_fast_convs
from mmvitcompress.registry import MODELS


def sample(
    value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    """Weighted sums of bilinear samples (Deformable DETR, Eq. 3).

    Equal to MMCV's ``multi_scale_deformable_attn_pytorch``, gradients
    included, up to rounding; what lies outside of a map is zero.

    Args:
        value: Maps of all L levels in raster order, one after the other
            (B, N, h, d).
        shapes: (L, 2), height and width of each level.
        locations: (B, Q, h, L, P, 2), x and y in [0, 1] of each map.
        weights: (B, Q, h, L, P).

    Returns:
        (B, Q, h·d).
    """
    batch, count, heads, dim = value.shape
    queries = locations.shape[1]
    height, width = (side[:, None] for side in shapes.int().unbind(1))
    start = (height * width).cumsum(0, dtype=torch.int32) - height * width
    x, y = locations.unbind(-1)
    x, x_share = _corners(x, width)
    y, y_share = _corners(y, height)
    # the row of the table that image, position and head have
    image = torch.arange(batch, dtype=torch.int32, device=value.device)
    head = torch.arange(heads, dtype=torch.int32, device=value.device)
    offset = image.view(-1, 1, 1, 1, 1) * count + start
    offset = offset * heads + head[:, None, None]
    x = x * heads
    y = y * (width * heads)[..., None] + offset[..., None]
    share = (weights[..., None] * y_share)[..., None] * x_share[..., None, :]
    sums = F.embedding_bag(
        (y[..., None] + x[..., None, :]).flatten(3).flatten(0, 2),
        value.reshape(-1, dim),
        # (B·Q·h, 4·L·P)
        per_sample_weights=share.to(value.dtype).flatten(3).flatten(0, 2),
        mode='sum',
    )
    return sums.view(batch, queries, heads * dim)


def _corners(x: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The two pixels on either side of each location, along one axis.

    Args:
        x: (B, Q, h, L, P) in [0, 1].
        size: (L, 1), pixels of each level.

    Returns:
        Which pixels, and how much each of them counts, both
        (B, Q, h, L, P, 2). Those outside of the map count nothing.
    """
    x = x * size - 0.5  # pixels have their centres at ½
    low = x.detach().floor()
    part = (x - low)[..., None]
    pixel = torch.stack([low, low + 1], -1)
    inside = pixel.clamp(min=0).minimum((size - 1)[..., None].to(pixel.dtype))
    share = torch.cat([1 - part, part], -1) * (pixel == inside)
    return inside.int(), share


class FastDeformableAttention(MultiScaleDeformableAttention):
    """MMCV's deformable attention, on CPUs through :func:`sample`.

    The same parameters and numbers, up to rounding. On other devices, under
    ``torch.compile`` and for reference boxes it is MMCV's own.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
        level_start_index: Tensor | None = None,
        **kwargs,
    ) -> Tensor:
        """(Q, B, D), or (B, Q, D) with ``batch_first``, as MMCV's."""
        if (
            query.device.type != 'cpu'
            or torch.compiler.is_compiling()
            or reference_points.shape[-1] != 2
        ):
            return super().forward(
                query,
                key,
                value,
                identity,
                query_pos,
                key_padding_mask,
                reference_points,
                spatial_shapes,
                level_start_index,
                **kwargs,
            )
        identity = query if identity is None else identity
        value = query if value is None else value
        query = query if query_pos is None else query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0)
        shape = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*shape, 2))
        # offsets are in pixels of their level
        offsets = offsets / spatial_shapes.flip(1)[:, None]
        weights = self.attention_weights(query)
        weights = weights.unflatten(-1, (self.num_heads, -1)).softmax(-1)
        output = sample(
            value.unflatten(-1, (self.num_heads, -1)),
            spatial_shapes,
            reference_points[:, :, None, :, None] + offsets,
            weights.unflatten(-1, shape[1:]),
        )
        output = self.output_proj(output)
        if not self.batch_first:
            output = output.transpose(0, 1)
        return self.dropout(output) + identity


def use_fast_deformable_attention(model: nn.Module) -> int:
    """Turn MMCV's deformable attention into :class:`FastDeformableAttention`.

    In place; parameters and their names stay.

    Returns:
        How many there were.
    """
    found = [
        module
        for module in model.modules()
        if type(module) is MultiScaleDeformableAttention
    ]
    for module in found:
        module.__class__ = FastDeformableAttention
    return len(found)


@MODELS.register_module()
class FastMSDeformAttnPixelDecoder(MSDeformAttnPixelDecoder):
    """MMDetection's ``MSDeformAttnPixelDecoder`` with the same arguments,
    state dict and numbers, up to rounding.

    On CPUs deformable attention adds up rows of a table and, at inference,
    convolutions run as :class:`~mmvitcompress.models.fast.conv.FastConv2d`;
    on other devices it is MMDetection's own.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        use_fast_deformable_attention(self)
        use_fast_convs(self)
