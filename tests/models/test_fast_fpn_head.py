"""What FastFPNHead does in its own way, against FPNHead."""

import pytest
import torch


@pytest.mark.parametrize(
    'changes',
    [
        dict(in_channels=[6, 7, 7, 9]),
        dict(align_corners=True, norm_cfg=dict(type='GN', num_groups=5)),
        dict(feature_strides=[4, 8, 8, 32]),
        dict(feature_strides=[4, 4, 4, 8]),
        dict(feature_strides=[8, 16, 8, 16], align_corners=True),
        dict(act_cfg=dict(type='GELU')),
    ],
)
def test_same_outputs_at_inference(heads, maps, changes, few_channels):
    stock, fast = heads('FPNHead', **changes)
    channels = changes.get('in_channels', [6, 7, 8, 9])
    strides = changes.get('feature_strides', [4, 8, 16, 32])
    sizes = {4: (39, 36), 8: (20, 18), 16: (10, 9), 32: (5, 5)}
    inputs = maps([sizes[stride] for stride in strides], channels)
    with torch.no_grad():
        torch.testing.assert_close(
            fast.eval()(inputs), stock.eval()(inputs), rtol=0, atol=1e-10
        )


def test_maps_of_equal_size_are_upsampled_together(heads, maps, monkeypatch):
    from mmseg.models.utils import Upsample

    counts = []
    forward = Upsample.forward
    monkeypatch.setattr(
        Upsample,
        'forward',
        lambda self, x: counts.append(1) or forward(self, x),
    )
    stock, fast = heads('FPNHead')
    with torch.no_grad():
        stock(maps())
        assert len(counts) == 1 + 2 + 3
        counts.clear()
        fast(maps())
    assert len(counts) == 1 + 1 + 2


@pytest.mark.parametrize(
    'strides', [[4, 4, 4, 8], [4, 4, 8, 8], [4, 4, 4, 4], [8, 16, 8, 16]]
)
def test_same_training_where_strides_repeat(heads, maps, strides):
    """Outputs, gradients and running statistics."""
    stock, fast = heads('FPNHead', feature_strides=strides)
    sizes = {4: (12, 10), 8: (6, 5), 16: (3, 3)}
    inputs = maps([sizes[stride] for stride in strides])
    results = []
    for head in (stock, fast):
        xs = [x.clone().requires_grad_() for x in inputs]
        out = head.train()(xs)
        torch.manual_seed(1)
        wanted = [*xs, *head.parameters()]
        loss = (out * torch.randn_like(out)).sum()
        grads = torch.autograd.grad(loss, wanted, allow_unused=True)
        results.append((out, *grads, *head.buffers()))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_maps_of_other_sizes_than_their_strides(heads, maps):
    """A repeated stride's map is resized, too, as the stock head does."""
    stock, fast = heads('FPNHead', feature_strides=[4, 4, 8, 8])
    inputs = maps([(12, 10), (6, 7), (6, 5), (5, 4)])
    torch.testing.assert_close(
        fast.eval()(inputs), stock.eval()(inputs), rtol=0, atol=1e-10
    )
