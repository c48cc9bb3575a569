"""MMCV's deformable attention on the stand-in, against a loop."""

import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

SHAPES = torch.tensor([[4, 6], [3, 2], [1, 1]])
STARTS = torch.tensor([0, 24, 30])

attend = MultiScaleDeformableAttnFunction.apply


def make_input(batch=2, queries=3, heads=2, dim=3, points=2, seed=0):
    """Values, locations (some outside the maps) and weights, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    value = random(batch, 31, heads, dim) - 0.5
    levels = len(SHAPES)
    locations = random(batch, queries, heads, levels, points, 2) * 1.6 - 0.3
    weights = random(batch, queries, heads, levels * points).softmax(-1)
    return value, locations, weights.unflatten(-1, (levels, points))


def loop(value, locations, weights):
    """Deformable DETR's eq. 3, sample by sample."""
    batch, _, heads, dim = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    output = torch.zeros(batch, queries, heads, dim, dtype=value.dtype)
    for b in range(batch):
        for q in range(queries):
            for m in range(heads):
                for level, (h, w) in enumerate(SHAPES.tolist()):
                    start = STARTS[level].item()
                    for p in range(points):
                        x, y = locations[b, q, m, level, p].tolist()
                        # pixel (i, j) has its centre at (i + ½, j + ½)
                        x, y = x * w - 0.5, y * h - 0.5
                        for i in range(h):
                            for j in range(w):
                                share = max(0, 1 - abs(y - i)) * max(
                                    0, 1 - abs(x - j)
                                )
                                output[b, q, m] += (
                                    weights[b, q, m, level, p]
                                    * share
                                    * value[b, start + i * w + j, m]
                                )
    return output.flatten(2)


def test_equals_the_loop():
    value, locations, weights = make_input()
    output = attend(value, SHAPES, STARTS, locations, weights, 64)
    torch.testing.assert_close(output, loop(value, locations, weights))


def test_gradients_equal_finite_differences():
    value, locations, weights = (x.requires_grad_() for x in make_input())
    assert torch.autograd.gradcheck(
        lambda v, loc, w: attend(v, SHAPES, STARTS, loc, w, 64),
        (value, locations, weights),
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """Values in half precision, the rest in float32: what AMP yields."""
    tensors = [x.float() for x in make_input()]
    tensors[0] = tensors[0].to(dtype)
    for tensor in tensors:
        tensor.requires_grad_()
    value, locations, weights = tensors
    output = attend(value, SHAPES, STARTS, locations, weights, 64)
    assert output.dtype == dtype
    # MMCV rounds locations and weights to the values' precision
    wide = [x.detach().to(dtype).double().requires_grad_() for x in tensors]
    expected = attend(wide[0], SHAPES, STARTS, wide[1], wide[2], 64)
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(
        output.double(), expected, rtol=rounding, atol=rounding
    )
    output.float().sum().backward()
    expected.sum().backward()
    for narrow, exact in zip(tensors, wide):
        assert narrow.grad.dtype == narrow.dtype
        torch.testing.assert_close(
            narrow.grad.double(), exact.grad, rtol=rounding, atol=rounding
        )


def test_no_queries():
    value, locations, weights = make_input(queries=0)
    value.requires_grad_()
    output = attend(value, SHAPES, STARTS, locations, weights, 64)
    assert output.shape == (2, 0, 6)
    output.sum().backward()
    assert value.grad.abs().sum() == 0
