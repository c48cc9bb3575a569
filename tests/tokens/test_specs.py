"""Budgets and moments of life regression, worked out by hand."""

import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens import (
    PatchSlimming,
    SoftPatchSlimmer,
    TokenMerging,
    TokenState,
)


def test_budgets_and_moments_of_the_paper():
    spec = PatchSlimming()
    assert spec.budgets(196, 12) == [196] * 4 + [138] * 3 + [97] * 3 + [68] * 2
    mean, std = spec.life_moments(196, 12)
    assert (round(mean, 3), round(std, 3)) == (8.291, 3.317)


def test_moments_by_hand():
    """10 patches, half leave after block 1 of 2: lives 1×5, 2×5."""
    spec = PatchSlimming(base_layer=1, layers=(1,), keep_rate=0.5)
    assert spec.life_moments(10, 2) == (1.5, 0.5)


def test_sharpness_is_u_and_survives_json():
    """β of a patch one layer before its end: 1 / (1 + exp(−U))."""
    arch = ViTArch(24, 3, 3, img_size=32, patch_size=8)
    for sharpness, content in ((1.5, {}), (3.0, dict(sharpness=3.0))):
        spec = PatchSlimming(1, (2,), 0.5, sharpness=sharpness)
        assert spec.to_dict() == (
            dict(base_layer=1, layers=[2], keep_rate=0.5) | content
        )
        assert PatchSlimming(**spec.to_dict()) == spec
        held = arch.replace(patch_slimming=spec)
        assert ViTArch.from_dict(held.to_dict()) == held
        lives = TokenState.start((1, 2)).noting(
            'patch_slimming', torch.tensor([[3.0, 2.0]])
        )
        bias = SoftPatchSlimmer(held, spec).bias(2, lives)
        beta = torch.tensor([1.0, 1 / (1 + math.exp(-sharpness)), 0.5])
        torch.testing.assert_close(bias.exp().flatten(), beta)
    for wrong in (0, -1.5, float('nan'), '1.5', True):
        with pytest.raises(ConfigError, match='sharpness must be a'):
            PatchSlimming(sharpness=wrong)


@pytest.mark.parametrize(
    'rate, patches, kept', [(0.55, 20, 11), (0.7, 10, 7), (0.7, 196, 138)]
)
def test_kept_is_the_ceiling(rate, patches, kept):
    assert PatchSlimming(keep_rate=rate).kept(patches) == kept


@given(
    patches=st.integers(1, 400),
    rate=st.floats(0.05, 1.0),
    depth=st.integers(10, 20),
)
def test_budgets_never_rise_and_keep_a_patch(patches, rate, depth):
    counts = PatchSlimming(keep_rate=rate).budgets(patches, depth)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == patches and counts[-1] >= 1


def test_directions_alternate():
    spec = TokenMerging((2, 4, 6))
    assert spec.directions == ('horizontal', 'vertical', 'horizontal')
    spec = TokenMerging((2, 4, 6), first='vertical')
    assert spec.directions == ('vertical', 'horizontal', 'vertical')
    spec = TokenMerging((2, 4), directions='symmetric')
    assert spec.directions == ('symmetric', 'symmetric')
    assert spec.direction_at(4) == 'symmetric'
    assert spec.direction_at(3) is None


DIRECTIONS = [
    'alternate',
    'symmetric',
    'diagonal',
    'vertical',
    ('vertical', 'horizontal', 'diagonal'),
    ('horizontal', 'horizontal', 'vertical'),
]


@pytest.mark.parametrize('first', ['horizontal', 'vertical'])
@pytest.mark.parametrize('directions', DIRECTIONS)
@pytest.mark.parametrize('conv', [False, True])
def test_merging_round_trip(directions, first, conv):
    """What comes back merges alike, and is the same by all means."""
    spec = TokenMerging((1, 3, 4), directions, first, conv)
    arch = ViTArch(12, 4, 2, token_merging=spec)
    content = json.loads(json.dumps(arch.to_dict()))
    assert content == ViTArch.from_dict(content).to_dict()
    back = ViTArch.from_dict(content)
    assert back == arch and hash(back) == hash(arch)
    assert repr(back) == repr(arch)
    for layer in range(1, 5):
        found = back.token_merging.direction_at(layer)
        assert found == spec.direction_at(layer)
    assert back.token_merging.conv == conv


def test_specs_are_equal_if_and_only_if_they_merge_alike():
    specs = [
        TokenMerging((1, 3, 4), directions, first, conv)
        for directions in DIRECTIONS
        for first in ('horizontal', 'vertical')
        for conv in (False, True)
    ]
    for a, b in itertools.product(specs, repeat=2):
        alike = (a.directions, a.conv) == (b.directions, b.conv)
        assert (a == b) == alike == (a.to_dict() == b.to_dict())
    assert TokenMerging((1, 3), first='vertical') == TokenMerging(
        (1, 3), ('vertical', 'horizontal')
    )
    assert TokenMerging((1, 3)) != TokenMerging((1, 4))


@pytest.mark.parametrize(
    ('spec', 'values', 'message'),
    [
        (TokenMerging, dict(layers=5, conv='no'), "conv .* got 'no'"),
        (TokenMerging, dict(layers='5'), "layers .* got '5'"),
        (PatchSlimming, dict(keep_rate='0.7'), "keep_rate .* got '0.7'"),
        (PatchSlimming, dict(keep_rate=float('nan')), 'keep_rate .* got nan'),
        (PatchSlimming, dict(base_layer=4.0), r'base_layer .* got 4\.0'),
        (PatchSlimming, dict(layers=None), 'layers .* got None'),
    ],
)
def test_specs_check_their_values_themselves(spec, values, message):
    with pytest.raises(ConfigError, match=message):
        spec(**values)
