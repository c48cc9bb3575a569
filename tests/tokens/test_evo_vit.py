"""Evo-ViT against its description, on lists, for one image."""

import pytest
import torch
from torch import nn

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens.methods.evo_vit import TokenEvolution

KEY = TokenEvolution.key
ARCH = ViTArch(24, 5, 3, patch_size=4, img_size=20)


def attention(attn, x):
    """The output, and what [CLS] attends to, from explicit weights."""
    q, k, v = (
        part.unflatten(2, (3, -1)).transpose(1, 2)
        for part in attn.qkv(x).split(attn.split, 2)
    )
    weights = (q @ k.transpose(2, 3) * 8**-0.5).softmax(-1)
    out = attn.proj((weights @ v).transpose(1, 2).flatten(2))
    return out, weights[0, :, 0, 1:].mean(0).tolist()


def reference(model, image, spec):
    """Every patch by itself; residuals of attention and MLP one by one."""
    x, _ = model.embed(image)
    cls, patches = x[0, :1], [*x[0, 1:]]
    count = len(patches)
    mean = slow = None
    for layer, block in enumerate(model.blocks, 1):
        if layer < spec.first:
            slow, fast = [*range(count)], []
        elif layer == spec.first or not spec.stages or layer in spec.stages:
            ranked = sorted(range(count), key=lambda i: -mean[i])
            kept = -(-count * 4 // 10)
            slow, fast = sorted(ranked[:kept]), sorted(ranked[kept:])
        tokens = [*cls, *(patches[i] for i in slow)]
        if fast:
            total = sum(mean[i] for i in fast)
            tokens.append(sum(mean[i] / total * patches[i] for i in fast))
        y = torch.stack(tokens)[None]
        first, row = attention(block.attn, block.norm1(y))
        y = y + first
        second = block.mlp(block.norm2(y))
        y = y + second
        cls = y[0, :1]
        for place, i in enumerate(slow):
            patches[i] = y[0, 1 + place]
        for i in fast:
            patches[i] = patches[i] + first[0, -1] + second[0, -1]
        if layer < spec.first:
            mean = row if mean is None or layer < spec.first else mean
        else:
            share = spec.tradeoff
            for place, i in enumerate(slow):
                mean[i] = (1 - share) * mean[i] + share * row[place]
    return torch.cat([cls, torch.stack(patches)])


@torch.no_grad()
@pytest.mark.parametrize('stages', [(), (3, 5), (3,)])
def test_against_lists(stages):
    spec = TokenEvolution(3, 0.4, tradeoff=0.7, stages=stages)
    torch.manual_seed(0)
    model = ViT(ARCH.replace(**{KEY: spec})).double().eval()
    model.norm = None
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    images = torch.randn(2, 3, 20, 20, dtype=torch.float64)
    found, state = model(images)[0]
    assert state.undo == ()
    for i in range(2):
        expected = reference(model, images[i : i + 1], spec)
        # attention is kept in single precision
        torch.testing.assert_close(found[i], expected, rtol=1e-5, atol=1e-5)


def test_costs_of_the_paper():
    """DeiT-Small, printed as 3.0 G; the released code has no representative
    token, which here goes through 8 blocks."""
    arch = get_arch('deit_small')
    evolved = arch.replace(**{KEY: {}})
    macs = evolved.macs(num_classes=1000)
    d, n = 384, 100
    one = 8 * (12 * d * d + 10 * d + 2 * d * (2 * n + 1))
    assert round((macs - one) / 1e9, 1) == 3.0 and macs < 3.06e9
    assert evolved.params() == arch.params()
    counts = evolved.counts()
    assert [c.attention for c in counts] == [196] * 4 + [99] * 8
    assert [c.left for c in counts] == [196] * 12


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(first=1), 'first must be a whole number of at least 2'),
        (dict(first=6), r'first must lie in 1\.\.5'),
        (dict(tradeoff=0), r'tradeoff must lie in \(0, 1\]'),
        (dict(first=3, stages=(4,)), 'stages must begin with .* 3'),
        (dict(first=3, keep_rate=2), 'keep_rate must lie in'),
    ],
)
def test_refusals(wrong, message):
    with pytest.raises(ConfigError, match=message):
        ARCH.replace(**{KEY: wrong})
