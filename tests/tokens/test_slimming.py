"""Life regression at inference: one sort, slices, exact restoring."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.tokens import (
    LifePredictor,
    PatchSlimming,
    TokenState,
    restore,
)
from mmvitcompress.tokens.life_predictor import scores_to_lives
from mmvitcompress.tokens.methods.life import sort_patches


def test_scores_by_hand():
    predictor = LifePredictor(2)
    torch.nn.init.eye_(predictor.query.weight)
    torch.nn.init.eye_(predictor.key.weight)
    x = torch.tensor([[[1.0, 3.0], [0.0, 4.0], [5.0, 1.0]]])
    # LayerNorm of (a, b) is (∓1, ±1): scores are ±2
    expected = torch.tensor([[2.0, -2.0]])
    torch.testing.assert_close(predictor(x, 1), expected, rtol=0, atol=1e-4)


def test_lives_have_the_wanted_moments():
    lives = scores_to_lives(torch.randn(3, 196), 8.291, 3.317)
    torch.testing.assert_close(lives.mean(1), torch.full((3,), 8.291))
    std = lives.std(1, correction=0)
    torch.testing.assert_close(std, torch.full((3,), 3.317))
    same = scores_to_lives(torch.ones(1, 4), 8.0, 3.0)
    assert torch.equal(same, torch.full((1, 4), 8.0))


def test_ties_keep_raster_order():
    x = torch.randn(1, 7, 3)
    out, state = sort_patches(
        x, torch.zeros(1, 6), TokenState.start((2, 3)), 1
    )
    assert torch.equal(out, x)
    assert state.undo[-1].order.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_the_longest_lives_stay():
    x = torch.arange(5.0).view(1, 5, 1)  # [CLS] = 0, patches 1..4
    scores = torch.tensor([[0.1, 0.9, -1.0, 0.5]])
    out, _ = sort_patches(x, scores, TokenState.start((2, 2)), 1)
    assert out.flatten().tolist() == [0, 2, 4, 1, 3]


def slim(x, grid, spec, num_prefix, depth):
    """Run the slimmer over blocks that add 100 to every token."""
    arch = ViTArch(x.shape[-1], 4, 1, reg_tokens=num_prefix - 1)
    slimmer = spec.build(arch, depth).to(x.dtype)
    state = TokenState.start(grid)
    for layer in range(1, depth + 1):
        x = x + 100
        x, state = slimmer.after(layer, x, state)
    return x[:, num_prefix:], state


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    num_prefix=st.integers(1, 5),
    rate=st.floats(0.1, 1.0),
    layers=st.sampled_from([(1,), (2, 3), (1, 2, 4)]),
)
@settings(max_examples=60, deadline=None)
def test_restoring_puts_every_patch_in_its_place(
    height, width, num_prefix, rate, layers
):
    spec = PatchSlimming(1, layers, rate)
    count = height * width
    x = torch.randn(2, num_prefix + count, 4, dtype=torch.float64)
    tokens, state = slim(x, (height, width), spec, num_prefix, 4)
    assert tokens.shape[1] == spec.budgets(count, 5)[-1]

    restored = restore(tokens, state).flatten(2).transpose(1, 2)
    # every patch came through as many blocks as it lived, and nothing else
    lived = (restored - x[:, num_prefix:]) / 100
    rounded = lived.round()
    torch.testing.assert_close(lived, rounded, rtol=0, atol=1e-9)
    counts = [*spec.budgets(count, 5), 0]
    for layer in (1, 2, 3):
        leaving = counts[layer - 1] - counts[layer]
        found = (rounded[..., 0] == layer).sum(1).tolist()
        assert found == [leaving, leaving]


def test_mask_token_fills_the_holes():
    spec = PatchSlimming(1, (1,), 0.5)
    x = torch.randn(2, 1 + 12, 4)
    tokens, state = slim(x, (3, 4), spec, 1, 2)
    fill = torch.tensor([1.0, 2.0, 3.0, 4.0])
    filled, structured = (
        restore(tokens, state, fill=token).flatten(2).transpose(1, 2)
        for token in (fill, None)
    )
    hole = (filled == fill).all(-1)
    assert hole.sum(1).tolist() == [6, 6]
    assert torch.equal(filled[~hole], structured[~hole])
    torch.testing.assert_close(structured[hole], x[:, 1:][hole] + 100)


def test_gradients_reach_departed_patches():
    spec = PatchSlimming(1, (1,), 0.5)
    x = torch.randn(2, 1 + 12, 4, requires_grad=True)
    restore(*slim(x, (3, 4), spec, 1, 2)).sum().backward()
    assert torch.equal(x.grad[:, 1:], torch.ones(2, 12, 4))
