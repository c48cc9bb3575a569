"""Multi-scale deformable attention, forward and backward.

Source: Zhu et al., "Deformable DETR", ICLR 2021, eq. 3. Shapes: B images,
N keys (the pixels of all L levels, one level after another), M heads of D
channels, Q queries, P points per level.

The levels are summed one by one and the backward pass samples again: what is
held at a time is the samples of one level, ``B·M·D·Q·P`` floats, and in the
backward pass their gradient. Arithmetic is in float32 at least.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional


@torch.no_grad()
def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Sample every query's points and sum them by their weights.

    Args:
        value: Values of shape ``(B, N, M, D)``.
        value_spatial_shapes: Heights and widths of the levels, ``(L, 2)``.
        value_level_start_index: First key of each level, ``(L,)``.
        sampling_locations: Points ``(x, y)`` as fractions of the map, of
            shape ``(B, Q, M, L, P, 2)``; samples outside the map are zero.
        attention_weights: Weights of shape ``(B, Q, M, L, P)``.
        im2col_step: Most images to sample at a time.

    Returns:
        The attended values, of shape ``(B, Q, M·D)``.
    """
    batch, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    output = value.new_zeros(batch, queries, heads * channels)
    for images in _chunks(batch, im2col_step):
        total = 0
        for index, keys, size in _levels(
            value_spatial_shapes, value_level_start_index
        ):
            maps = _maps(value[images, keys], size)
            points = _points(sampling_locations[images, :, :, index])
            weights = _weights(attention_weights[images, :, :, index])
            total = total + _sample(maps, points).mul_(weights).sum(-1)
        merged = total.unflatten(0, (-1, heads)).flatten(1, 2)
        output[images] = merged.transpose(1, 2).to(value.dtype)
    return output


@torch.no_grad()
def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Add the gradients of values, points and weights to three tensors.

    Args:
        value: As in :func:`ms_deform_attn_forward`, as are the next four.
        value_spatial_shapes: Heights and widths of the levels.
        value_level_start_index: First key of each level.
        sampling_locations: Points.
        attention_weights: Weights.
        grad_output: Gradient of the output, of shape ``(B, Q, M·D)``.
        grad_value: Receives the gradient of ``value``.
        grad_sampling_loc: Receives the gradient of ``sampling_locations``.
        grad_attn_weight: Receives the gradient of ``attention_weights``.
        im2col_step: Most images to sample at a time.
    """
    batch, _, heads, _ = value.shape
    for images in _chunks(batch, im2col_step):
        # (B, Q, M·D) -> (B·M, D, Q, 1)
        grad = _widen(grad_output[images]).unflatten(2, (heads, -1))
        grad = grad.permute(0, 2, 3, 1).flatten(0, 1)[..., None]
        for index, keys, size in _levels(
            value_spatial_shapes, value_level_start_index
        ):
            maps = _maps(value[images, keys], size)
            points = _points(sampling_locations[images, :, :, index])
            weights = _weights(attention_weights[images, :, :, index])
            with torch.enable_grad():
                maps.requires_grad_()
                points.requires_grad_()
                samples = _sample(maps, points)
            grad_maps, grad_points = torch.autograd.grad(
                samples, (maps, points), grad * weights
            )
            grad_weights = samples.detach().mul_(grad).sum(1)
            grad_maps = grad_maps.flatten(2).unflatten(0, (-1, heads))
            grad_value[images, keys] += grad_maps.permute(0, 3, 1, 2)
            # points run from -1 to 1, locations from 0 to 1
            grad_points = 2 * grad_points.unflatten(0, (-1, heads))
            grad_sampling_loc[images, :, :, index] += grad_points.transpose(
                1, 2
            )
            grad_weights = grad_weights.unflatten(0, (-1, heads))
            grad_attn_weight[images, :, :, index] += grad_weights.transpose(
                1, 2
            )


def _chunks(batch: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` images."""
    for start in range(0, batch, size):
        yield slice(start, start + size)


def _levels(
    shapes: Tensor, starts: Tensor
) -> Iterator[tuple[int, slice, tuple[int, int]]]:
    """Index, keys and size of each level."""
    shapes, starts = shapes.tolist(), starts.tolist()
    for index, ((height, width), start) in enumerate(zip(shapes, starts)):
        yield index, slice(start, start + height * width), (height, width)


def _widen(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _maps(value: Tensor, size: tuple[int, int]) -> Tensor:
    """One level's values ``(B, N, M, D)`` as maps ``(B·M, D, H, W)``."""
    maps = _widen(value).permute(0, 2, 3, 1).flatten(0, 1)
    return maps.unflatten(2, size)


def _points(locations: Tensor) -> Tensor:
    """One level's locations ``(B, Q, M, P, 2)`` as ``(B·M, Q, P, 2)``."""
    return (2 * _widen(locations) - 1).transpose(1, 2).flatten(0, 1)


def _weights(weights: Tensor) -> Tensor:
    """One level's weights ``(B, Q, M, P)`` as ``(B·M, 1, Q, P)``."""
    return _widen(weights).transpose(1, 2).flatten(0, 1)[:, None]


def _sample(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of shape ``(B·M, D, Q, P)``."""
    return functional.grid_sample(
        maps,
        points,
        mode='bilinear',
        padding_mode='zeros',
        align_corners=False,
    )
