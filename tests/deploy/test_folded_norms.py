"""Models without batch norms against those that they were made of."""

import copy

import pytest
import torch
from mmcv.cnn import ConvModule
from torch import nn

from mmvitcompress.deploy.folded_norms import fold_batch_norms
from mmvitcompress.models.fast.conv import FastConv2d

FAST = dict(type='mmvitcompress.FastConv2d')


def module(**kwargs):
    return ConvModule(160, 160, norm_cfg=dict(type='BN'), **kwargs)


CASES = {
    'sequence': lambda: nn.Sequential(
        nn.Conv2d(160, 160, 3, 2), nn.BatchNorm2d(160), nn.ReLU()
    ),
    'fast': lambda: nn.Sequential(
        FastConv2d(160, 160, 3, padding=1, bias=False), nn.BatchNorm2d(160)
    ),
    'in groups': lambda: nn.Sequential(
        FastConv2d(160, 160, 3, padding=1, groups=8), nn.BatchNorm2d(160)
    ),
    'transposed': lambda: nn.Sequential(
        nn.ConvTranspose2d(160, 8, 2, 2), nn.BatchNorm2d(8)
    ),
    'module': lambda: module(kernel_size=3, padding=1),
    'fast module': lambda: module(kernel_size=3, padding=1, conv_cfg=FAST),
    'fast module of 1x1': lambda: module(kernel_size=1, conv_cfg=FAST),
}
KEPT = {
    'norm first': lambda: module(kernel_size=1, order=('norm', 'conv', 'act')),
    'transposed in groups': lambda: nn.Sequential(
        nn.ConvTranspose2d(160, 160, 2, 2, groups=8), nn.BatchNorm2d(160)
    ),
    "the batch's own": lambda: nn.Sequential(
        nn.Conv2d(160, 160, 1), nn.BatchNorm2d(160, track_running_stats=False)
    ),
}


@torch.no_grad()
def compare(make, count):
    torch.manual_seed(0)
    model = make().double().eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for parameter in norm.parameters():
                nn.init.normal_(parameter)
            if norm.track_running_stats:
                nn.init.normal_(norm.running_mean)
                nn.init.uniform_(norm.running_var, 0.5, 2)
    folded = copy.deepcopy(model)
    assert fold_batch_norms(folded) == count
    left = [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(left) == 1 - count
    for size in ((8, 9), (36, 40)):  # by the direct way, and by Winograd's
        x = torch.randn(2, 160, *size, dtype=torch.double)
        x = x.to(memory_format=torch.channels_last)
        expected = model(x)
        torch.testing.assert_close(
            folded(x), expected, rtol=0, atol=1e-11 * expected.abs().max()
        )
    return model, folded


@pytest.mark.parametrize('name', CASES)
def test_same_numbers_without_the_norm(name):
    model, folded = compare(CASES[name], 1)
    kinds = [
        {type(m) for m in net.modules() if hasattr(m, 'kernel_size')}
        for net in (model, folded)
    ]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize('name', KEPT)
def test_others_stay(name):
    compare(KEPT[name], 0)
