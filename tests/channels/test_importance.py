"""Scores of channels, and what makes up for those that go, by hand."""

import numpy as np
import pytest
import torch
from small_vits import SCORED, loss_of, scored_images, scored_vit

from mmvitcompress.channels import (
    MacBudget,
    attach_compactors,
    fold,
    set_kept_,
)
from mmvitcompress.channels.compactors import Kinds
from mmvitcompress.channels.compensation import (
    Moments,
    compensate,
    compensate_all_,
    input_moments,
    means_of,
)
from mmvitcompress.channels.importance import per_cost, taylor
from mmvitcompress.models import ViT


@pytest.fixture
def model():
    return scored_vit()


@pytest.fixture
def x():
    return scored_images(6)


def test_scores_are_derivatives_by_the_size_of_each_channel(model, x):
    """Central differences of the loss, as a channel is scaled by 1 ± ε."""
    losses = (loss_of(model, x[i : i + 1]) for i in range(2))
    scores = taylor(model, losses)
    assert [part.shape for part in scores[0]] == [(2, 6)] * 3 + [(1, 20)]
    block = model.blocks[1]
    places = dict(
        q=(block.attn.qkv, (0, slice(None)), 4, scores[1].q[0, 4]),
        k=(block.attn.qkv, (0, slice(None)), 12 + 7, scores[1].k[1, 1]),
        v=(block.attn.proj, (slice(None), 0), 9, scores[1].v[1, 3]),
        mlp=(block.mlp.fc2, (slice(None), 0), 13, scores[1].mlp[0, 13]),
    )
    step = 1e-5
    for layer, axes, index, score in places.values():
        where = tuple(index if axis == 0 else axis for axis in axes)
        changes = []
        with torch.no_grad():
            for image in range(2):
                at = []
                for factor in (1 + step, 1 - step):
                    old = layer.weight[where].clone(), layer.bias.clone()
                    layer.weight[where] *= factor
                    if axes[0] == 0:  # a row has its bias
                        layer.bias[index] *= factor
                    at.append(loss_of(model, x[image : image + 1]).item())
                    layer.weight[where], layer.bias[:] = old
                changes.append((at[0] - at[1]) / (2 * step))
        assert score == pytest.approx(np.mean(np.square(changes)), rel=1e-6)


def test_constant_channels_count_nothing_where_means_stay(model, x):
    with torch.no_grad():
        model.blocks[0].mlp.fc1.weight[3] = 0  # its bias is all it says
    means = means_of(input_moments(model, [x]))
    losses = [loss_of(model, x) for _ in range(2)]
    plain, centred = (
        taylor(model, losses[:1]),
        taylor(model, losses[1:], means),
    )
    assert plain[0].mlp[0, 3] > 1e-9 > centred[0].mlp[0, 3] * 1e9
    assert (centred[0].mlp[0, :3] > 1e-12).all()


def test_moments_are_those_of_all_tokens(model, x):
    seen = []
    layer = model.blocks[1].mlp.fc2
    handle = layer.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].flatten(0, 1))
    )
    found = input_moments(model, x.split(4))[1][1]
    handle.remove()
    every = torch.cat(seen)
    assert len(every) == 6 * 5  # [CLS] and four patches
    torch.testing.assert_close(found.mean, every.mean(0), rtol=0, atol=1e-6)
    expected = every.T.cov(correction=0)
    torch.testing.assert_close(found.covariance, expected, rtol=0, atol=1e-5)


def test_a_channel_that_others_tell_is_made_up_for():
    """h₂ = 2·h₀ − h₁ + 3, and h₃ = 5: both go without loss."""
    torch.manual_seed(0)
    h = torch.randn(400, 4).double()
    h[:, 2], h[:, 3] = 2 * h[:, 0] - h[:, 1] + 3, 5.0
    weight, bias = torch.randn(2, 4).double(), torch.randn(2).double()
    moments = Moments(h.mean(0), h.T.cov(correction=0))
    kept = torch.tensor([True, True, False, False])
    narrow, shifted = compensate(weight, bias, moments, kept)
    torch.testing.assert_close(
        h[:, kept] @ narrow.T + shifted, h @ weight.T + bias, rtol=0, atol=0.03
    )
    only = torch.tensor([True, True, True, False])  # exact: nothing to solve
    narrow, shifted = compensate(weight, bias, moments, only)
    torch.testing.assert_close(narrow, weight[:, :3])
    torch.testing.assert_close(shifted, bias + 5 * weight[:, 3])


@torch.no_grad()
def test_removing_a_constant_channel_changes_nothing(model, x):
    """A value that all tokens have, a hidden unit that is its bias."""
    first = model.blocks[0]
    first.attn.qkv.weight[[24, 30]] = 0  # V's first channel, both heads
    first.mlp.fc1.weight[3] = 0
    expected = model(x)[-1][0]
    kept = [
        Kinds(
            *(np.ones((2, 6), bool) for _ in range(3)), np.ones((1, 20), bool)
        )
        for _ in range(2)
    ]
    kept[0].v[:, 0] = kept[0].mlp[0, 3] = False
    moments = input_moments(model, [x])
    set_kept_(attach_compactors(model), kept)
    arch, tensors = fold(model)
    without = ViT(arch, final_norm=False).double().eval()
    without.load_state_dict(tensors)
    assert (without(x)[-1][0] - expected).abs().max() > 1e-3
    compensate_all_(tensors, model, moments, kept)
    without.load_state_dict(tensors)
    torch.testing.assert_close(without(x)[-1][0], expected, rtol=0, atol=1e-6)


def test_costs_divide_what_all_heads_lose_together():
    budget = MacBudget.of(SCORED)
    score = np.array([[3.0, 1, 2, 9, 9, 9], [4.0, 6, 5, 9, 9, 9]])
    block = Kinds(score, 3 * score, score, np.arange(20.0)[None])
    found = per_cost([block, block], budget)[0]
    cost = budget.costs[0]
    # the lowest of both heads are 1 and 4, then 2 and 5, then 3 and 6
    level = np.array([[9.0, 5, 7, 18, 18, 18], [5.0, 9, 7, 18, 18, 18]])
    np.testing.assert_allclose(found.v, level / cost.v)
    np.testing.assert_allclose(found.q, 2 * level / cost.qk)
    np.testing.assert_allclose(found.k, found.q)
    np.testing.assert_allclose(found.mlp[0], np.arange(20) / cost.mlp)
