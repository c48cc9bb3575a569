"""Both fast heads against MMSegmentation's own."""

import pytest
import torch

NAMES = ['UPerHead', 'FPNHead']


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('sizes', ['even', 'odd'])
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), None])
@pytest.mark.parametrize('training', [False, True])
def test_same_outputs_gradients_and_statistics(
    heads, maps, name, sizes, align_corners, norm_cfg, training
):
    pair = heads(name, align_corners=align_corners, norm_cfg=norm_cfg)
    results = []
    inputs = maps(sizes)
    for head in pair:
        given = [x.clone().requires_grad_() for x in inputs]
        out = head.train(training)(given)
        (out**2).mean().backward()
        results.append(
            [
                out.detach(),
                *(x.grad for x in given),
                *(p.grad for p in head.parameters()),
                *head.buffers(),
            ]
        )
    assert len(results[0]) == len(results[1]) > 5
    for theirs, mine in zip(*results):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize('name', NAMES)
def test_low_precision_and_compiling(heads, maps, name):
    _, fast = heads(name)
    fast.float().eval()
    inputs = [x.float() for x in maps()]
    with torch.no_grad():
        expected = fast(inputs)
        with torch.autocast('cpu', torch.bfloat16):
            low = fast(inputs)
        compiled = torch.compile(fast, backend='aot_eager', fullgraph=True)
        torch.testing.assert_close(compiled(inputs), expected)
    assert low.dtype == torch.bfloat16
    error = (low.float() - expected).abs().max() / expected.abs().max()
    assert error < 0.03


@pytest.mark.parametrize('name', NAMES)
def test_they_are_found(head_config, name):
    from mmseg.registry import MODELS

    kind, settings = head_config(name)
    head = MODELS.build(dict(type=f'mmvitcompress.Fast{name}', **settings))
    assert type(head) is kind
