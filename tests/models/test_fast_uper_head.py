"""What FastUPerHead does in its own way, against UPerHead."""

import pytest
import torch

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.fast import conv as fast_conv
from mmvitcompress.models.fast import uper_head as fast_uper_head
from mmvitcompress.models.fast.winograd import winograd_conv


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), None])
def test_same_outputs_at_inference(
    heads, maps, align_corners, norm_cfg, monkeypatch, few_channels
):
    """Norms folded, convolutions by Winograd."""
    calls = []
    for module in (fast_uper_head, fast_conv):
        monkeypatch.setattr(
            module,
            'winograd_conv',
            lambda *args: calls.append(len(args[0])) or winograd_conv(*args),
        )
    stock, fast = heads(
        'UPerHead', align_corners=align_corners, norm_cfg=norm_cfg
    )
    inputs = maps('large')
    with torch.no_grad():
        torch.testing.assert_close(
            fast.eval()(inputs), stock.eval()(inputs), rtol=0, atol=1e-10
        )
    # the finest map of the FPN, and two maps at once in the last one
    assert calls == [1, 2]


def test_other_convolutions_are_refused(head_config):
    kind, settings = head_config(
        'UPerHead', conv_cfg=dict(type='Conv2dAdaptivePadding')
    )
    with pytest.raises(ConfigError, match='use UPerHead'):
        kind(**settings)
