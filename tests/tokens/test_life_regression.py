"""Life regression while training: soft weights and where they act."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.tokens import PatchSlimming, TokenState
from mmvitcompress.tokens.life_predictor import (
    MIN_DEVIATION,
    key_bias,
    log_weights,
    scores_to_lives,
)


def build(dim, depth, spec, training=False):
    """A slimmer of a model of so many blocks."""
    arch = ViTArch(dim, depth, 1, patch_slimming=spec)
    return spec.build(arch, depth, training)


LOW = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize(
    ('life', 'layer', 'weight'),
    [
        (8.0, 8, 0.5),
        (10.0, 8, 1 / (1 + math.exp(-3))),  # U·(8 − 10) = −3
        (4.0, 5, 1 / (1 + math.exp(1.5))),  # dies after block 4
        (5.0, 12, 1 / (1 + math.exp(10.5))),
    ],
)
def test_weights_by_hand(life, layer, weight):
    found = log_weights(torch.tensor(life, dtype=torch.float64), layer).exp()
    assert found.item() == pytest.approx(weight, rel=1e-12)


def test_weights_fall_with_the_layer_and_stay_finite():
    lives = torch.tensor([-20.0, 0.0, 8.3, 30.0])
    weights = torch.stack([log_weights(lives, t) for t in range(1, 13)])
    assert (weights.diff(dim=0) <= 0).all() and (weights <= 0).all()
    assert weights.isfinite().all()


def test_prefix_tokens_live_for_ever():
    lives = torch.tensor([[7.0, 3.0], [2.0, 9.0]], dtype=torch.float64)
    bias = key_bias(lives, 5, num_prefix=2)
    assert bias.shape == (2, 1, 1, 4)
    assert torch.equal(bias[..., :2], torch.zeros_like(bias[..., :2]))
    expected = 1 / (1 + torch.exp(1.5 * (5 - lives)))
    torch.testing.assert_close(bias[:, 0, 0, 2:].exp(), expected)


@given(
    patches=st.integers(1, 400),
    rate=st.floats(0.05, 1.0),
    depth=st.integers(10, 20),
)
def test_lives_add_up_to_the_budgets(patches, rate, depth):
    """Property 1: Σ_i τ_i = μ·N = Σ_t n_t."""
    spec = PatchSlimming(keep_rate=rate)
    mean, _ = spec.life_moments(patches, depth)
    budgets = spec.budgets(patches, depth)
    assert mean * patches == pytest.approx(sum(budgets))


@pytest.mark.parametrize(
    'scores', [torch.ones(2, 9), torch.ones(2, 9) + 1e-7 * torch.randn(2, 9)]
)
def test_equal_scores_keep_gradients_finite(scores):
    scores.requires_grad_()
    lives = scores_to_lives(scores, 8.0, 3.0)
    torch.testing.assert_close(
        lives, torch.full_like(lives, 8.0), rtol=0, atol=0.1
    )
    log_weights(lives, 7)[:, 0].sum().backward()
    bound = 1.5 * 3.0 / MIN_DEVIATION
    assert scores.grad.isfinite().all() and scores.grad.abs().max() <= bound


@pytest.mark.parametrize('dtype', LOW)
def test_lives_are_standardised_in_float32(dtype):
    scores = torch.randn(2, 50).to(dtype)
    lives = scores_to_lives(scores, 8.0, 3.0)
    assert lives.dtype == torch.float32
    torch.testing.assert_close(lives.mean(1), torch.full((2,), 8.0))
    assert scores_to_lives(scores.double(), 8.0, 3.0).dtype == torch.float64


def test_training_keeps_all_patches_and_notes_lives():
    slimmer = build(8, 4, PatchSlimming(2, (2, 3), 0.5), training=True)
    x = torch.randn(3, 1 + 12, 8)
    start = TokenState.start((3, 4))

    out, state = slimmer.after(1, x, start)
    assert out is x and state == start and slimmer.bias(2, state) is None

    out, state = slimmer.after(2, x, start)
    assert out is x and not state.undo
    # 12 6 3 … of 4 blocks: 12, 12, 6, 3 → μ = 33 / 12
    lives = state.notes['patch_slimming']
    torch.testing.assert_close(
        lives.mean(1), torch.full((3,), 33 / 12), rtol=0, atol=1e-5
    )
    assert torch.equal(lives.argsort(1), slimmer.predictor(x, 1).argsort(1))
    _, after = slimmer.after(3, x, state)
    assert after is state
    expected = key_bias(lives, 3, 1)
    assert torch.equal(slimmer.bias(3, state), expected)


def test_evaluation_is_hard():
    spec = PatchSlimming(2, (2, 3), 0.5)
    soft = build(8, 4, spec, training=True).eval()
    hard = build(8, 4, spec)
    hard.load_state_dict(soft.state_dict())
    assert all(p.requires_grad for p in soft.parameters())
    assert not any(p.requires_grad for p in hard.parameters())
    x = torch.randn(3, 1 + 12, 8)
    results = []
    for slimmer in (soft, hard):
        tokens, state = x, TokenState.start((3, 4))
        for layer in (1, 2, 3, 4):
            assert slimmer.bias(layer, state) is None
            tokens, state = slimmer.after(layer, tokens, state)
        results.append((tokens, state.undo[-1].order))
    assert results[0][0].shape == (3, 1 + 3, 8)
    for mine, theirs in zip(*results):
        assert torch.equal(mine, theirs)


def test_a_new_predictor_tells_patches_apart():
    slimmer = build(192, 12, PatchSlimming(), training=True)
    scores = slimmer.predictor(torch.randn(4, 1 + 49, 192), 1)
    assert scores.std(1).min() > 0.5
