"""Scores of gates against what closing and opening them does to a loss."""

import numpy as np
import pytest
import torch
from small_vits import loss_of, scored_images, scored_vit

from mmvitcompress.channels import attach_compactors
from mmvitcompress.channels.compactors import each_kind
from mmvitcompress.channels.gates import GateScores, are_gates, hold_
from mmvitcompress.channels.importance import taylor


@pytest.fixture
def model():
    return scored_vit()


@pytest.fixture
def x():
    return scored_images(4)


def gradients(model, compactors, x):
    weights = [part.weight for part in each_kind(compactors)]
    return torch.autograd.grad(loss_of(model, x), weights)


def test_scores_are_derivatives_by_gates(model, x):
    compactors = attach_compactors(model)
    compactors[0].mlp.kept[0, 3] = compactors[1].v.kept[1, 2] = False
    assert not are_gates(compactors)
    hold_(compactors)
    assert are_gates(compactors)
    scores = GateScores(compactors, memory=0.0)
    scores.add(gradients(model, compactors, x))
    found, step = scores.scores(), 1e-6
    # open ones and closed ones
    for block, kind, group, channel in (
        *((0, 'q', 0, 4), (1, 'k', 1, 1), (1, 'v', 1, 2), (0, 'mlp', 0, 3)),
        *((1, 'v', 0, 2), (0, 'mlp', 0, 13)),
    ):
        weight = getattr(compactors[block], kind).weight
        losses = []
        for change in (step, -step):
            with torch.no_grad():
                weight[group, channel, channel] += change
                losses.append(loss_of(model, x).item())
                weight[group, channel, channel] -= change
        slope = (losses[0] - losses[1]) / (2 * step)
        score = getattr(found[block], kind)[group, channel]
        assert score == pytest.approx(slope**2, rel=1e-4)


def test_heads_are_scored_as_by_weights(model, x):
    """The gate's derivative is the sum of gradient times weight."""
    expected = taylor(model, [loss_of(model, x)])
    compactors = attach_compactors(model)
    scores = GateScores(compactors)
    scores.add(gradients(model, compactors, x))
    for found, own in zip(scores.scores(), expected):
        for a, b in zip(found[:3], own[:3]):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_means_forget(model, x):
    compactors = attach_compactors(model)
    scores = GateScores(compactors, memory=0.75)
    assert not scores.scores()[0].q.any()
    each = []
    for image in x:
        gates = gradients(model, compactors, image[None])
        scores.add(gates)
        each.append(gates[0].diagonal(dim1=1, dim2=2).square())
    weights = [0.75**age for age in (3, 2, 1, 0)]
    expected = sum(w * g for w, g in zip(weights, each)) / sum(weights)
    np.testing.assert_allclose(scores.scores()[0].q, expected, rtol=1e-5)
    again = GateScores(compactors, memory=0.75)
    again.load_state_dict(scores.state_dict())
    np.testing.assert_array_equal(
        again.scores()[1].mlp, scores.scores()[1].mlp
    )
