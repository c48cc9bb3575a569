"""Training in bfloat16 on a CPU."""

import pytest
import torch
from torch import nn

from mmvitcompress.engine import wrappers
from mmvitcompress.registry import OPTIM_WRAPPERS


@pytest.mark.parametrize('has', (True, False))
def test_forward_in_bfloat16_weights_in_float32(monkeypatch, capsys, has):
    """A CPU without it goes on in float32, and says so once."""
    monkeypatch.setattr(wrappers, 'cpu_has_bfloat16', lambda: has)
    model = nn.Linear(4, 4)
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    wrapper = OPTIM_WRAPPERS.build(
        dict(
            type='mmvitcompress.BFloat16OptimWrapper',
            optimizer=sgd,
            accumulative_counts=2,
        )
    )
    before = model.weight.detach().clone()
    x = torch.randn(3, 4)
    for step in range(2):
        with wrapper.optim_context(model):
            out = model(x)
        assert out.dtype == (torch.bfloat16 if has else torch.float32)
        wrapper.update_params(out.float().square().mean())
        moved = not model.weight.equal(before)
        assert moved == (step == 1)  # gradients accumulate
    assert model.weight.dtype == torch.float32
    said = capsys.readouterr()
    assert (said.out + said.err).count('no bfloat16') == (not has)


def test_a_build_without_onednn_has_none(monkeypatch):
    assert wrappers.cpu_has_bfloat16() in (True, False)
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    assert wrappers.cpu_has_bfloat16() is False
