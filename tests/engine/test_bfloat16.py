"""Training in bfloat16 on a CPU."""

import torch
from torch import nn

from mmvitcompress.registry import OPTIM_WRAPPERS


def test_forward_in_bfloat16_weights_in_float32():
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
        assert out.dtype == torch.bfloat16
        wrapper.update_params(out.float().square().mean())
        moved = not model.weight.equal(before)
        assert moved == (step == 1)  # gradients accumulate
    assert model.weight.dtype == torch.float32
