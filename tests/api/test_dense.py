"""With nothing compressed, the model is timm's."""

import copy

import pytest
import timm
import torch
from swins import randomised
from timm_vits import FAMILIES, SMALL, difference, images, make

import mmvitcompress


@torch.no_grad()
@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float64, 1e-10)]
)
def test_nothing_compressed_is_timm(family, dtype, tolerance):
    theirs = make(family).to(dtype)
    before = copy.deepcopy(theirs.state_dict())
    ours = mmvitcompress.compress(theirs)
    x = images(theirs)
    assert difference(ours(x), theirs(x)) <= tolerance
    tokens = theirs.forward_features(x)
    assert difference(ours.forward_features(x), tokens) <= tolerance
    head = theirs.forward_head(tokens, pre_logits=True)
    assert difference(ours.forward_head(tokens, True), head) <= tolerance
    options = dict(indices=[0, -1], norm=True, return_prefix_tokens=True)
    if not theirs.num_prefix_tokens:
        del options['return_prefix_tokens']
    last, maps = ours.forward_intermediates(x, **options)
    their_last, their_maps = theirs.forward_intermediates(x, **options)
    assert difference(last, their_last) <= tolerance
    for a, b in zip(maps, their_maps, strict=True):
        for one, other in zip(a, b, strict=True):
            assert difference(one, other) <= tolerance
    options = dict(output_fmt='NLC', intermediates_only=True)
    ours, maps = (
        model.forward_intermediates(x, 2, **options)
        for model in (ours, theirs)
    )
    assert difference(torch.stack(ours), torch.stack(maps)) <= tolerance
    assert all(
        torch.equal(value, before[name])
        for name, value in theirs.state_dict().items()
    )


@torch.no_grad()
def test_other_sizes_are_taken_as_timm_does():
    theirs = make('dinov2_reg4', dynamic_img_size=True)
    ours = mmvitcompress.compress(theirs)
    x = torch.randn(1, 3, 42, 84)
    assert difference(ours(x), theirs(x)) <= 1e-5
    # and what is no multiple of the patch is padded
    maps = ours.forward_intermediates(torch.randn(1, 3, 43, 57))[1]
    assert maps[0].shape == (1, 64, 4, 5)


@torch.no_grad()
def test_attention_pools_are_left_aside(capsys):
    theirs = timm.create_model(
        'vit_base_patch32_siglip_256', **{**SMALL, 'img_size': 64}
    )
    ours = mmvitcompress.compress(randomised(theirs))
    assert 'attention pool, and what follows it' in capsys.readouterr().out
    x = images(theirs)
    tokens = theirs.forward_features(x)
    assert difference(ours.forward_features(x), tokens) <= 1e-5
    # nothing is made of the tokens that was not learned
    assert torch.equal(ours(x), ours.forward_features(x))


def test_distilled_heads_while_training():
    theirs = make('distilled').train()
    ours = mmvitcompress.compress(theirs)
    assert ours.training
    for model in (ours, theirs):
        model.set_distilled_training(True)
    x = images(theirs)
    for a, b in zip(ours(x), theirs(x), strict=True):
        assert difference(a, b) <= 1e-5


def test_macs_are_those_of_the_arch():
    ours = mmvitcompress.compress(
        'deit_small_patch16_224', [5, 8], pretrained=False
    )
    # CAIT Table I: 43.1 % of 4 608 338 304 with [CLS] counted
    assert ours.macs() / 4_608_338_304 == pytest.approx(1 - 0.431, abs=5e-4)
    assert ours.macs(512) == ours.arch.macs(512, num_classes=1000)
    pooled = mmvitcompress.compress(make('vit_avg'))
    # one LayerNorm less for all tokens, one for the pooled one
    tokens = pooled.arch.replace(token_merging=None).macs(64, 5)
    assert tokens - pooled.macs() == 5 * 64 * (17 - 1)
