"""LFE: the filter by Fourier transforms, and what stays by lists."""

import math

import pytest
import torch
from torch import nn

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens.methods.lfe import TokenEnergy, low_frequency_share

KEY = TokenEnergy.key
ARCH = ViTArch(24, 4, 3, patch_size=4, img_size=20)


@pytest.mark.parametrize('count', [1, 2, 7, 24])
@pytest.mark.parametrize('cutoff', [0.15, 0.6])
def test_the_filter_is_one_of_frequencies(count, cutoff):
    torch.manual_seed(count)
    x = torch.randn(2, count, 5, dtype=torch.float64)
    k = torch.arange(count, dtype=torch.float64)
    sigma = cutoff * count / 2
    gain = 1 - (-((k - count / 2) ** 2) / (2 * sigma**2)).exp()
    left = torch.fft.ifft(torch.fft.fft(x, dim=1) * gain[:, None], dim=1)
    expected = left.abs().square().sum(2) / x.square().sum(2)
    found = low_frequency_share(x, cutoff).double()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_waves_are_told_by_their_length():
    """A constant passes, what alternates from patch to patch does not."""
    flat, zigzag = torch.ones(8), torch.tensor([1.0, -1] * 4)
    x = torch.stack([flat, zigzag])[..., None]
    share = low_frequency_share(x, 0.15)
    torch.testing.assert_close(share[0], torch.ones(8))
    assert share[1].abs().max() < 1e-6
    assert low_frequency_share(torch.zeros(1, 4, 2), 0.15).isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize('attended', [True, False])
def test_the_highest_scores_stay(attended):
    spec = TokenEnergy((2, 4), rates=(0.6, 0.4), attention=attended)
    torch.manual_seed(0)
    model = ViT(ARCH.replace(**{KEY: spec})).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    images = torch.randn(2, 3, 20, 20, dtype=torch.float64)
    found = model(images)[0][0]
    for i in range(2):
        x, _ = model.embed(images[i : i + 1])
        for layer, block in enumerate(model.blocks, 1):
            y = block.norm1(x)
            q, k, _ = block.attn.qkv(y).split(block.attn.split, 2)
            logits = torch.stack(
                [
                    q[0, 0, 8 * h : 8 * h + 8] @ k[0, :, 8 * h : 8 * h + 8].T
                    for h in range(3)
                ]
            )
            row = (logits * 8**-0.5).softmax(1).mean(0)[1:]
            x = x + block.attn(y)
            if layer in spec.layers:
                scores = low_frequency_share(x[:, 1:], 0.15)[0]
                scores = scores * row if attended else scores
                count = math.ceil(
                    dict(zip(spec.layers, spec.rates))[layer] * len(scores)
                    - 1e-9
                )
                ranked = sorted(range(len(scores)), key=lambda j: -scores[j])
                stay = [0, *(1 + j for j in sorted(ranked[:count]))]
                x = x[:, stay]
            x = x + block.mlp(block.norm2(x))
        torch.testing.assert_close(found[i], model.norm(x)[0])


def test_costs_of_the_paper():
    """DeiT-Small at −43.3 %, filters and [CLS] rows included."""
    arch = get_arch('deit_small')
    whole = arch.macs(num_classes=1000)

    def saved(spec):
        return 1 - arch.with_reductions(spec).macs(num_classes=1000) / whole

    found = TokenEnergy.for_target(arch, 224, saved, 0.433)
    assert abs(saved(found) - 0.433) < 0.0025
    plain = found.kept_in(4, 196)
    counts = arch.with_reductions(found).counts()
    assert counts[3].attention == 196 and counts[3].mlp == plain
    assert arch.with_reductions(found).params() == arch.params()


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(keep_rate=0), 'keep_rate must lie in'),
        (dict(layers=(1, 2), rates=(0.5,)), 'each of 2 layers'),
        (dict(layers=(1,), rates=(0,)), 'rates must lie in'),
        (dict(layers=(1,), cutoff=0), 'cutoff must be'),
        (dict(layers=(5,)), r'layers must lie in 1\.\.4'),
    ],
)
def test_refusals(wrong, message):
    with pytest.raises(ConfigError, match=message):
        ARCH.replace(**{KEY: wrong})
