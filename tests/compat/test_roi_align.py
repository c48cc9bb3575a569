"""MMCV's RoIAlign on the stand-in, against a loop over samples."""

import math

import pytest
import torch
from mmcv.ops import RoIAlign, roi_align

# image, x1, y1, x2, y2: inside, across the border, outside, tiny, a line
ROIS = torch.tensor(
    [
        [0, 2.0, 3.0, 21.5, 17.0],
        [1, -9.0, -7.0, 13.0, 40.0],
        [1, 60.0, 60.0, 80.0, 90.0],
        [0, 5.2, 5.1, 5.9, 6.3],
        [0, 4.0, 8.0, 30.0, 8.0],
    ],
    dtype=torch.float64,
)


def bilinear(image, y, x):
    """The value of ``image[h][w]`` at a point, 0 far outside."""
    height, width = len(image), len(image[0])
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y = min(max(y, 0), height - 1)
    x = min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    upper = image[y0][x0] * (x0 + 1 - x) + image[y0][x1] * (x - x0)
    lower = image[y1][x0] * (x0 + 1 - x) + image[y1][x1] * (x - x0)
    return upper * (y0 + 1 - y) + lower * (y - y0)


def loop_roi_align(features, rois, size, scale, ratio, mode, aligned):
    height, width = size
    channels = features.shape[1]
    output = torch.zeros(len(rois), channels, height, width).double()
    for r, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (c * scale - 0.5 * aligned for c in corners)
        floor = 0 if aligned else 1
        bin_h = max(y2 - y1, floor) / height
        bin_w = max(x2 - x1, floor) / width
        rows = ratio or math.ceil(bin_h)
        columns = ratio or math.ceil(bin_w)
        for c in range(channels):
            plane = features[int(image), c].tolist()
            for i in range(height):
                for j in range(width):
                    samples = [
                        bilinear(
                            plane,
                            y1 + (i + (a + 0.5) / rows) * bin_h,
                            x1 + (j + (b + 0.5) / columns) * bin_w,
                        )
                        for a in range(rows)
                        for b in range(columns)
                    ] or [0.0]
                    pool = max(samples)
                    if mode == 'avg':
                        pool = sum(samples) / len(samples)
                    output[r, c, i, j] = pool
    return output


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 9, 11, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('ratio', [0, 1, 3])
@pytest.mark.parametrize('size', [(2, 2), (3, 5)])
def test_equals_the_loop(features, size, ratio, mode, aligned):
    args = (size, 0.5, ratio, mode, aligned)
    expected = loop_roi_align(features, ROIS, *args)
    pooled = roi_align(features, ROIS, *args)
    torch.testing.assert_close(pooled, expected)
    # and in the precision of training
    pooled = roi_align(features.float(), ROIS.float(), *args)
    torch.testing.assert_close(pooled, expected.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('ratio', [0, 2])
def test_gradient_equals_finite_differences(features, ratio, mode, aligned):
    features = features[:, :1].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: roi_align(x, ROIS, (2, 3), 0.5, ratio, mode, aligned),
        (features,),
    )


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_gradient_of_the_loop(features, mode):
    """Central differences of the loop itself, at a few pixels."""
    args = ((2, 2), 0.5, 0, mode, True)
    leaf = features[:, :1].clone().requires_grad_()
    weight = torch.linspace(-1, 1, len(ROIS) * 4).view(-1, 1, 2, 2).double()
    (roi_align(leaf, ROIS, *args) * weight).sum().backward()
    for place in [(0, 0, 4, 3), (0, 0, 2, 8), (1, 0, 0, 0), (1, 0, 8, 5)]:
        totals = []
        for step in (1e-5, -1e-5):
            moved = leaf.detach().clone()
            moved[place] += step
            pooled = loop_roi_align(moved, ROIS, *args)
            totals.append((pooled * weight).sum().item())
        slope = (totals[0] - totals[1]) / 2e-5
        assert leaf.grad[place].item() == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_half_precision(features, dtype, mode):
    """Only the rounding of input and output is lost, not coordinates."""
    half = features.to(dtype).requires_grad_()
    wide = half.detach().double().requires_grad_()
    rois = ROIS.to(dtype)
    args = ((2, 2), 0.5, 2, mode, True)
    pooled = roi_align(half, rois, *args)
    expected = roi_align(wide, rois.double(), *args)
    assert pooled.dtype == dtype
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(
        pooled.double(), expected, rtol=rounding, atol=rounding
    )
    pooled.sum().backward()
    expected.sum().backward()
    assert half.grad.dtype == dtype
    if mode == 'avg':
        torch.testing.assert_close(
            half.grad.double(), wide.grad, rtol=rounding, atol=rounding
        )


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_no_regions(features, mode):
    features.requires_grad_()
    layer = RoIAlign((7, 7), 0.25, pool_mode=mode)
    pooled = layer(features, torch.zeros(0, 5, dtype=torch.float64))
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert features.grad.abs().sum() == 0


def test_gradient_of_a_non_contiguous_output(features):
    features.requires_grad_()
    pooled = roi_align(features, ROIS, (2, 2), 0.5)
    pooled.permute(0, 2, 3, 1).flatten(1)[:, ::3].sum().backward()
    grad = features.grad.clone()
    features.grad = None
    # every third of (h, w, channel) is channel 0
    roi_align(features, ROIS, (2, 2), 0.5)[:, 0].sum().backward()
    torch.testing.assert_close(grad, features.grad)
