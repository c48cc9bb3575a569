"""Multi-scale deformable attention, forward and backward.

Both run MMCV's own form in PyTorch (Zhu et al., "Deformable DETR", ICLR 2021,
Eq. 3) image by image, the backward pass once more: what is held at a time is
a few times the samples of one image, ``M·D·Q·L·P`` floats. Arithmetic is in
float32 at least. Shapes: B images, N keys (the pixels of all L levels, one
level after another), M heads of D channels, Q queries, P points per level.
"""

from collections.abc import Iterator

import torch
from torch import Tensor


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
        value_level_start_index: First key of each level, ``(L,)``; not asked
            for, since it follows from the shapes.
        sampling_locations: Points ``(x, y)`` as fractions of the map, of
            shape ``(B, Q, M, L, P, 2)``; samples outside the map are zero.
        attention_weights: Weights of shape ``(B, Q, M, L, P)``.
        im2col_step: Most images to sample at a time; it is one.

    Returns:
        The attended values, of shape ``(B, Q, M·D)``.
    """
    tensors = (value, sampling_locations, attention_weights)
    return torch.cat(
        [
            _attend(value_spatial_shapes, *parts).to(value.dtype)
            for parts in _images(*tensors)
        ]
    )


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
        grad_output: Gradient of the output, of shape ``(B, Q, M·D)``, of
            :func:`ms_deform_attn_forward`, whose other arguments these are.
        grad_value: Receives the gradient of ``value``.
        grad_sampling_loc: Receives the gradient of ``sampling_locations``.
        grad_attn_weight: Receives the gradient of ``attention_weights``.
    """
    tensors = (value, sampling_locations, attention_weights)
    gradients = (grad_value, grad_sampling_loc, grad_attn_weight)
    for *given, grad, into_value, into_points, into_weights in _images(
        *tensors, grad_output, *gradients
    ):
        given = [part.detach().requires_grad_() for part in given]
        with torch.enable_grad():
            output = _attend(value_spatial_shapes, *given)
        found = torch.autograd.grad(output, given, grad.to(output.dtype))
        for into, part in zip((into_value, into_points, into_weights), found):
            into += part


def _images(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of tensors, one image (1, ...) of each at a time."""
    return zip(*(tensor.split(1) for tensor in tensors))


def _attend(
    shapes: Tensor, value: Tensor, points: Tensor, weights: Tensor
) -> Tensor:
    # mmcv.ops imports these functions
    from mmcv.ops.multi_scale_deform_attn import (
        multi_scale_deformable_attn_pytorch,
    )

    wide = torch.promote_types(value.dtype, torch.float32)
    return multi_scale_deformable_attn_pytorch(
        value.to(wide), shapes.tolist(), points.to(wide), weights.to(wide)
    )
