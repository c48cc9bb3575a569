"""What FastFPNHead does in its own way, against FPNHead."""

import pytest
import torch


@pytest.mark.parametrize(
    'changes',
    [
        dict(in_channels=[6, 7, 7, 9]),
        dict(align_corners=True, norm_cfg=dict(type='GN', num_groups=5)),
        dict(feature_strides=[4, 8, 8, 32]),
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
