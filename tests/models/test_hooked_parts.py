"""Parts of fast heads and necks that carry hooks are called, as elsewhere."""

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn.utils import prune, weight_norm

from mmvitcompress.models import UnmergePyramid, UnmergeUpsample
from mmvitcompress.models.necks.fpn import UnmergeFPN
from mmvitcompress.tokens import TokenMap, TokenState
from mmvitcompress.tokens.methods.atme import merged

Feature2Pyramid = MODELS.get('mmseg.Feature2Pyramid')


def prune_half(module):
    if not hasattr(module, 'weight'):
        pytest.skip('nothing to prune')
    prune.l1_unstructured(module, 'weight', 0.5)


def normalise(module):
    if not isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        pytest.skip('no convolution')
    weight_norm(module)
    with torch.no_grad():  # else it changes nothing
        module.weight_g.mul_(
            torch.linspace(0.5, 2, len(module.weight_g))[
                (slice(None), *[None] * (module.weight_g.dim() - 1))
            ]
        )


def scale_output(module):
    module.register_forward_hook(lambda _, args, out: 1.5 * out)


def shift_input(module):
    module.register_forward_pre_hook(lambda _, args: (args[0] - 0.3,))


def replace_forward(module):
    forward = module.forward
    module.forward = lambda x: 2 * forward(x)


CHANGES = [prune_half, normalise, scale_output, shift_input, replace_forward]
PARTS = {
    'UPerHead': [
        'conv_seg',
        'bottleneck',
        'bottleneck.conv',
        'psp_modules.1',
        'psp_modules.1.1',
        'psp_modules.1.1.conv',
        'lateral_convs.0',
        'lateral_convs.1.conv',
        'fpn_convs.0',
        'fpn_convs.0.bn',
        'fpn_convs.1.conv',
        'fpn_convs.1.activate',
        'fpn_bottleneck',
        'fpn_bottleneck.conv',
        'fpn_bottleneck.bn',
        'fpn_bottleneck.activate',
    ],
    'FPNHead': [
        'conv_seg',
        'scale_heads.0',
        'scale_heads.0.0',
        'scale_heads.0.0.conv',
        'scale_heads.1',
        'scale_heads.1.0.bn',
        'scale_heads.1.1',
        'scale_heads.3.2.conv',
        'scale_heads.3.3',
    ],
}


def check(stock, ours, inputs, names, change):
    """Two training steps and inference, hooks in the same place of both."""
    for model, name in zip((stock, ours), names):
        change(model.get_submodule(name))
    for _ in range(2):
        results = []
        for model in (stock, ours):
            model.train().zero_grad()
            out = model(inputs)
            out = out if isinstance(out, tuple) else (out,)
            sum(x.square().mean() for x in out).backward()
            grads = [p.grad for p in model.parameters()]
            results.append([*out, *grads])
            with torch.no_grad():
                for p in model.parameters():
                    p.sub_(1e-3 * p.grad)
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        outs = [model.eval()(inputs) for model in (stock, ours)]
    torch.testing.assert_close(*outs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize(
    ('head', 'part'), [(h, part) for h in PARTS for part in PARTS[h]]
)
def test_heads(heads, maps, head, part, change, few_channels):
    stock, fast = heads(head)
    check(stock, fast, maps('large'), (part, part), change)


def test_a_hook_of_all_pools_sees_what_they_return(heads, maps):
    stock, fast = heads('UPerHead')
    for head in (stock, fast):
        head.psp_modules.register_forward_hook(
            lambda _, args, out: [2 * x for x in out]
        )
    inputs = maps()
    torch.testing.assert_close(fast(inputs), stock(inputs))


def levels(dim):
    """Merged maps, all of them of one grid."""
    torch.manual_seed(0)
    state = TokenState.start((6, 8))
    for direction in ('horizontal', 'vertical'):
        state = merged(state, direction)
    tokens = torch.randn(4, 2, 12, dim, dtype=torch.float64)
    return [TokenMap(x, state) for x in tokens]


def copied(stock, ours):
    for value in stock.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 0.4)
    ours.load_state_dict(stock.state_dict())


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize(
    'part',
    ['upsample_2x', 'upsample_2x.0', 'upsample_4x']
    + [f'upsample_4x.{i}' for i in range(4)],
)
def test_pyramid(part, change):
    norm = dict(type='BN')
    theirs = Feature2Pyramid(6, [4, 2, 1, 0.5], norm).double()
    ours = UnmergePyramid(6, norm_cfg=norm).double()
    copied(theirs, ours)
    stock = nn.Sequential(UnmergeUpsample(), theirs)
    check(stock, ours, levels(6), (f'1.{part}', part), change)


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize(
    'part',
    [
        '0.upsample_4x.3',
        '1.lateral_convs.0',
        '1.lateral_convs.0.conv',
        '1.lateral_convs.1.conv',
        '1.lateral_convs.2',
        '1.lateral_convs.3.conv',
        '1.fpn_convs.0',
        '1.fpn_convs.2.conv',
    ],
)
def test_pyramid_and_fpn_in_one(part, change):
    norm = dict(type='BN')
    fpn = dict(
        type='mmseg.FPN', in_channels=[6] * 4, out_channels=5, num_outs=4
    )
    stock = nn.Sequential(
        UnmergePyramid(6, norm_cfg=norm), MODELS.build(fpn)
    ).double()
    ours = UnmergeFPN(6, 5, norm_cfg=norm).double()
    copied(stock, ours)
    check(stock, ours, levels(6), (part, part), change)
