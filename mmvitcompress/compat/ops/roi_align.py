"""RoIAlign, average and max, with gradients for the feature map.

Source: He et al., "Mask R-CNN", ICCV 2017. A region is
``(image index, x1, y1, x2, y2)`` in pixels of the image; features have shape
``(B, C, H, W)``, outputs ``(R, C, aligned_height, aligned_width)``. All
arithmetic is in float32 at least: half-precision coordinates would move the
samples by whole pixels.
"""

import math

import torch
import torchvision
from torch import Tensor
from torch.nn import functional

MAX, AVERAGE = range(2)

# a sample outside every feature map, whose bilinear weights are zero
NOWHERE = -2.0


@torch.no_grad()
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool the samples of every bin of every region into ``output``.

    Args:
        input: Features of shape ``(B, C, H, W)``.
        rois: Regions of shape ``(R, 5)``.
        output: Receives the pooled features.
        argmax_y: With max pooling receives, in the shape of ``output``, the
            row at which each maximum was sampled (pixels of the features).
        argmax_x: Likewise the column.
        aligned_height: Bins per column of a region.
        aligned_width: Bins per row of a region.
        spatial_scale: Pixels of the features per pixel of the image.
        sampling_ratio: Samples per bin and axis; 0 for one per pixel.
        pool_mode: 0 for the maximum of a bin's samples, 1 for their mean.
        aligned: Whether pixel centres lie at half coordinates.
    """
    dtype = torch.promote_types(input.dtype, torch.float32)
    features, rois = input.to(dtype), rois.to(dtype)
    size = (aligned_height, aligned_width)
    if pool_mode == AVERAGE:
        pooled = torchvision.ops.roi_align(
            features, rois, size, spatial_scale, sampling_ratio, aligned
        )
        output.copy_(pooled)
        return
    offset = 0.5 if aligned else 0.0
    corners = (rois[:, 1:] * spatial_scale - offset).tolist()
    images = rois[:, 0].int().tolist()
    # one region at a time: each has its own number of samples, and those of
    # a large one fill some 10 MB
    for index, (image, corner) in enumerate(zip(images, corners)):
        left, top, right, bottom = corner
        floor = 0.0 if aligned else 1.0
        height, width = max(bottom - top, floor), max(right - left, floor)
        rows = sampling_ratio or math.ceil(height / aligned_height)
        columns = sampling_ratio or math.ceil(width / aligned_width)
        if rows == 0 or columns == 0:
            output[index] = 0
            argmax_y[index] = argmax_x[index] = NOWHERE
            continue
        # samples of a bin are the centres of rows × columns smaller bins
        fine = (aligned_height * rows, aligned_width * columns)
        region = rois[index : index + 1].clone()
        region[:, 0] = 0
        samples = torchvision.ops.roi_align(
            features[image : image + 1],
            region,
            fine,
            spatial_scale,
            sampling_ratio=1,
            aligned=aligned,
        )
        maximum, position = functional.max_pool2d(
            samples[0], (rows, columns), return_indices=True
        )
        output[index] = maximum
        row = position.div(fine[1], rounding_mode='floor')
        column = position % fine[1]
        argmax_y[index] = top + (row + 0.5) * height / fine[0]
        argmax_x[index] = left + (column + 0.5) * width / fine[1]


@torch.no_grad()
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of the features to ``grad_input``.

    Args:
        grad_output: Gradient of the output of :func:`roi_align_forward`,
            whose other arguments these are.
        grad_input: Receives the gradient, of shape ``(B, C, H, W)``.
    """
    dtype = torch.promote_types(grad_input.dtype, torch.float32)
    grad_output = grad_output.to(dtype)
    if pool_mode == MAX:
        gradient = _scatter_bilinear(
            grad_output,
            rois[:, 0].long(),
            argmax_y.to(dtype),
            argmax_x.to(dtype),
            grad_input.shape,
        )
    else:
        # the mean is linear in the features: any point will do
        with torch.enable_grad():
            point = torch.zeros_like(
                grad_input, dtype=dtype, requires_grad=True
            )
            pooled = torchvision.ops.roi_align(
                point,
                rois.to(dtype),
                (aligned_height, aligned_width),
                spatial_scale,
                sampling_ratio,
                aligned,
            )
        (gradient,) = torch.autograd.grad(pooled, point, grad_output)
    grad_input.add_(gradient)


def _scatter_bilinear(
    values: Tensor, images: Tensor, y: Tensor, x: Tensor, shape: torch.Size
) -> Tensor:
    """Spread values over the four pixels around (y, x), all (R, C, h, w), of
    the image (R,) of each region; ``shape`` is (B, C, H, W)."""
    batch, channels, height, width = shape
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    values = values * inside
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    plane = (
        images[:, None] * channels
        + torch.arange(channels, device=images.device)[None]
    )[..., None, None]
    result = values.new_zeros(batch * channels * height * width)
    for row, row_weight in (
        (top, 1 - (y - top)),
        ((top + 1).clamp(max=height - 1), y - top),
    ):
        for column, column_weight in (
            (left, 1 - (x - left)),
            ((left + 1).clamp(max=width - 1), x - left),
        ):
            pixel = (plane * height + row.long()) * width + column.long()
            weighted = values * row_weight * column_weight
            result.index_add_(0, pixel.flatten(), weighted.flatten())
    return result.view(shape)
