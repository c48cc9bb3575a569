"""Criteria: how much each channel matters, as ``select`` reads it.

A criterion is a function from a model to scores, for each block
:class:`Kinds` of float64 arrays, (heads, width) for Q, K and V and (1, width)
for the MLP, larger for what should stay.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from mmvitcompress.channels.budget import MacBudget
from mmvitcompress.channels.compactors import Kinds, transformer_blocks


@torch.no_grad()
def magnitudes(model: nn.Module) -> list[Kinds]:
    """How much each channel can do, by the size of its weights.

    The score of a V channel, and of a hidden channel of the MLP, is
    ‖w_in‖₂ · ‖w_out‖₂, of its row in W_V or W_1 and its column in W_O or W_2;
    that of a position of Q and K is ‖w_q‖₂ · ‖w_k‖₂. A gated hidden channel
    has two rows, whose norms are multiplied. All are relative to the mean of
    their block and kind, so that no block goes for its scale.
    """
    scores = []
    for _, block in transformer_blocks(model):
        attn, mlp = block.attn, block.mlp
        rows = _norms(attn.qkv.weight, 1).split(attn.split)
        q, k, v = (part.view(attn.num_heads, -1) for part in rows)
        v = v * _norms(attn.proj.weight, 0).view_as(v)
        hidden = _norms(mlp.fc2.weight, 0)
        rows = _norms(mlp.fc1.weight, 1).view(-1, len(hidden))
        hidden = rows.prod(0) * hidden
        parts = (q * k, q * k, v, hidden[None])
        scores.append(Kinds(*(_relative(part) for part in parts)))
    return scores


def _norms(weight: Tensor, dim: int) -> Tensor:
    return torch.linalg.vector_norm(weight.double(), dim=dim)


def _relative(scores: Tensor) -> ndarray:
    mean = scores.mean()
    return (scores / mean if mean > 0 else scores).cpu().numpy()


def random_scores(model: nn.Module, seed: int = 0) -> list[Kinds]:
    """Scores that say nothing, uniform in [0, 1): what to compare with."""
    generator = np.random.default_rng(seed)
    scores = []
    for _, block in transformer_blocks(model):
        attn, hidden = block.attn, block.mlp.fc2.in_features
        widths = [attn.qk_dim, attn.qk_dim, attn.v_dim]
        sizes = [(attn.num_heads, width) for width in widths] + [(1, hidden)]
        scores.append(Kinds(*map(generator.random, sizes)))
    return scores


class Means(NamedTuple):
    """Means over tokens of what ``attn.proj`` and ``mlp.fc2`` of a block are
    given: (heads · width) and (hidden)."""

    proj: Tensor
    fc2: Tensor


def taylor(
    model: nn.Module,
    losses: Iterable[Tensor],
    means: Sequence[Means] | None = None,
) -> list[Kinds]:
    """How much losses change with each channel: the mean of (Σ g·w)².

    Molchanov et al., "Importance Estimation for Neural Network Pruning" (CVPR
    2019), Eq. 8: to first order, removing the weights w of a channel changes
    a loss with the gradient g by Σ g·w. For V and the hidden layer w is the
    channel's column in W_O or W_2, for Q and K its row and bias.

    Args:
        model: Without compactors, its parameters trainable.
        losses: Scalars that the model's parameters take part in, such as one
            for each image; a generator holds one graph at a time.
        means: Of each block, if a removed channel leaves its mean behind in
            the bias: what is lost then is its deviation from it. Defaults to
            none.
    """
    blocks = [block for _, block in transformer_blocks(model)]
    layers = [(b.attn.qkv, b.attn.proj, b.mlp.fc2) for b in blocks]
    flat = [p for row in layers for layer in row for p in _params(layer)]
    totals, count = [[0.0] * 4 for _ in blocks], 0
    for loss in losses:
        count += 1
        grads = dict(zip(map(id, flat), torch.autograd.grad(loss, flat)))
        for i, (block, row) in enumerate(zip(blocks, layers)):
            mean = (None, None) if means is None else means[i]
            gates = _gates(block.attn, row, grads, mean)
            totals[i] = [a + g.square() for a, g in zip(totals[i], gates)]
    return [
        Kinds(*((part / max(1, count)).cpu().numpy() for part in block))
        for block in totals
    ]


def _params(layer: nn.Linear) -> list[Tensor]:
    return [layer.weight] if layer.bias is None else [layer.weight, layer.bias]


def _gates(attn, layers, grads: dict, means) -> list[Tensor]:
    """Σ g·w of the channels of one block, for each kind."""
    qkv, *outs = layers
    with torch.no_grad():
        rows = (grads[id(qkv.weight)] * qkv.weight).double().sum(1)
        if qkv.bias is not None:
            rows += grads[id(qkv.bias)] * qkv.bias
        columns = []
        for out, mean in zip(outs, means):
            grad = grads[id(out.weight)].double()
            if mean is not None and out.bias is not None:
                grad = grad - torch.outer(grads[id(out.bias)].double(), mean)
            columns.append((grad * out.weight).sum(0))
        q, k, _ = rows.split(attn.split)
        heads = (part.view(attn.num_heads, -1) for part in (q, k, columns[0]))
        return [*heads, columns[1][None]]


def low_pass(images: Tensor, cutoff: float = 0.1) -> Tensor:
    """Images (B, 3, H, W) without their high frequencies.

    For LFS, the low-frequency sensitivity of VTC-LFC (Wang et al., NeurIPS
    2022): :func:`taylor` of losses that a model has on such images, against
    what it or its teacher says of whole ones. The filter is a Gaussian, whose
    deviation is ``cutoff`` of the highest frequency of the shorter side.
    """
    sides = images.shape[-2:]
    sigma = min(sides) * cutoff / 2
    squares = [
        (torch.fft.fftfreq(side).to(images) * side).square() for side in sides
    ]
    distance = squares[0][:, None] + squares[1]
    gain = (-distance / (2 * sigma**2)).exp()
    return torch.fft.ifft2(torch.fft.fft2(images) * gain).real


def per_cost(scores: Sequence[Kinds], budget: MacBudget) -> list[Kinds]:
    """Scores by the MACs that removing a channel saves.

    For criteria that sum up (as :func:`taylor`'s do): the k-th lowest of all
    heads go together, so that all of them get the sum, Q's and K's too, and
    so do channels that go in pairs.
    """
    found, demands = [], budget.constraints
    for block, cost in zip(map(demands.joined, scores), budget.costs):
        qk = (block.q + block.k) / 2
        parts = (qk, qk, block.v, block.mlp)
        costs = (cost.qk, cost.qk, cost.v, cost.mlp)
        levels = Kinds(*(_level(p) / c for p, c in zip(parts, costs)))
        found.append(demands.spread(levels))
    return found


def _level(score: ndarray) -> ndarray:
    order = score.argsort(axis=1, kind='stable')
    level = score.copy()
    sums = score[range(len(score)), order.T].sum(axis=1)
    for row, places in zip(level, order):
        row[places] = sums
    return level
