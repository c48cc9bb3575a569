"""Our decode heads beside MMSegmentation's, which they must equal."""

import pytest
import torch
from mmengine.registry import init_default_scope

# where MMCV has no operations of its own, it finds ours from here on
import mmvitcompress  # noqa: F401
from mmvitcompress.models.fast import winograd
from mmvitcompress.models.fast.fpn_head import FastFPNHead
from mmvitcompress.models.fast.uper_head import FastUPerHead

SETTINGS = dict(
    in_channels=[6, 7, 8, 9],
    in_index=[0, 1, 2, 3],
    channels=5,
    dropout_ratio=0.0,
    num_classes=4,
    norm_cfg=dict(type='BN'),
    align_corners=False,
)
HEADS = {
    'UPerHead': (FastUPerHead, dict(pool_scales=(1, 2, 3))),
    'FPNHead': (FastFPNHead, dict(feature_strides=[4, 8, 16, 32])),
}
SIZES = {
    'even': [(16, 24), (8, 12), (4, 6), (2, 3)],
    'odd': [(13, 9), (7, 5), (4, 3), (2, 2)],
    'large': [(39, 36), (20, 18), (10, 9), (5, 5)],
}


@pytest.fixture
def head_config():
    """Name of MMSegmentation's head → type of ours, and its arguments."""
    init_default_scope('mmseg')  # where heads find their loss

    def config(name, **changes):
        kind, own = HEADS[name]
        return kind, {**SETTINGS, **own, **changes}

    return config


@pytest.fixture
def heads(head_config):
    """Name of MMSegmentation's head → it and ours, with equal numbers."""
    from mmseg.models import decode_heads

    def heads(name, **changes):
        kind, settings = head_config(name, **changes)
        torch.manual_seed(0)
        stock = getattr(decode_heads, name)(**settings).double()
        fast = kind(**settings).double()
        for module in stock.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for value in module.state_dict().values():
                    if value.is_floating_point():
                        value.uniform_(0.5, 1.5)
        fast.load_state_dict(stock.state_dict())
        return stock, fast

    return heads


@pytest.fixture
def maps():
    """Makes random maps (2, C, H, W); their sizes are named or given."""

    def maps(sizes='even', channels=SETTINGS['in_channels']):
        sizes = SIZES[sizes] if isinstance(sizes, str) else sizes
        return [
            torch.randn(2, c, *size, dtype=torch.double)
            for c, size in zip(channels, sizes)
        ]

    return maps


@pytest.fixture
def few_channels(monkeypatch):
    """Winograd for maps as small as tests want them."""
    monkeypatch.setattr(winograd, 'LEAST_CHANNELS', 1)
