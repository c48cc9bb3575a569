"""A linear probe: batch norm and a linear map of each position."""

import pytest
import torch
import torch.nn.functional as F

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.heads.linear_head import LinearHead


def test_is_a_linear_map_of_normalised_positions():
    torch.manual_seed(0)
    head = LinearHead([3, 5], num_classes=4, norm_cfg=dict(type='BN')).eval()
    head.norm.running_mean.normal_()
    head.norm.running_var.uniform_(0.5, 2)
    fine, coarse = torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3)
    large = F.interpolate(coarse, (4, 6), mode='bilinear')
    x = torch.cat([fine, large], 1).movedim(1, -1)
    x = (x - head.norm.running_mean) / (head.norm.running_var + 1e-5).sqrt()
    weight, bias = head.conv_seg.weight[..., 0, 0], head.conv_seg.bias
    expected = (x @ weight.T + bias).movedim(-1, 1)
    torch.testing.assert_close(head((fine, coarse)), expected)


def test_learns_nothing_else():
    head = LinearHead([3, 5], num_classes=4, norm_cfg=dict(type='BN'))
    assert sum(p.numel() for p in head.parameters()) == 2 * 8 + 8 * 4 + 4


def test_channels_are_those_of_the_maps():
    with pytest.raises(ConfigError, match=r'in_channels = 8, but got 16'):
        LinearHead([3, 5], num_classes=4, channels=16)
