"""Pairs that rotary positions turn, and what norms keep whole."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.channels import (
    Kinds,
    MacBudget,
    SelectionRules,
    attach_compactors,
    fold,
    kept_widths,
    removable,
    select,
    set_kept_,
    without,
)
from mmvitcompress.channels.constraints import (
    FREE,
    Constraints,
    kept_units,
)
from mmvitcompress.channels.importance import magnitudes, per_cost
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import ViT

SHAPE = dict(
    embed_dim=24,
    depth=3,
    num_heads=2,
    head_dim=16,
    mlp_dims=(32, 24, 40),
    patch_size=4,
    img_size=16,
)
PAIRS = Constraints(2)


def scores(arch, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Kinds(
            *(rng.random((arch.num_heads, width)) for width in (qk, qk, v)),
            rng.random((1, mlp)),
        )
        for qk, v, mlp in map(arch.widths, range(1, arch.depth + 1))
    ]


def test_units_by_hand():
    q = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    block = Kinds(q, 2 * q, q, q[:1])
    joined = PAIRS.joined(block)
    assert joined.q.tolist() == [[2, 3], [6, 7]]
    assert joined.k.tolist() == [[4, 6], [12, 14]]
    assert joined.v is q and FREE.joined(block) is block
    masks = Kinds(*(q > 5, q > 8, q > 0, q[:1] > 0))
    assert PAIRS.any_of(masks).q.tolist() == [[False, False], [True, True]]
    assert PAIRS.spread(joined).q.tolist() == [[2, 3, 2, 3], [6, 7, 6, 7]]
    kept = np.tile([[True, False, True], [False, True, True]], (1, 2))
    assert kept_units(kept, 2).tolist() == [[0, 2], [1, 2]]
    assert [PAIRS.multiple(n) for n in (1, 2, 3, 8)] == [1, 1, 3, 4]
    assert [FREE.multiple(n) for n in (1, 8)] == [1, 8]


def test_what_an_arch_demands():
    arch = ViTArch(**SHAPE)
    assert Constraints.of(arch) == FREE == MacBudget.of(arch).constraints
    rotary = arch.replace(rope={}, mlp_norm=True)
    assert Constraints.of(rotary) == Constraints(2, ('mlp',))
    assert Constraints.of(arch.replace(attn_norm=True)).whole == ('v',)


@pytest.mark.parametrize('divisor', [1, 3, 8])
@pytest.mark.parametrize(
    'levels', [*itertools.product([True, False], repeat=2)]
)
def test_partners_go_together(divisor, levels):
    arch = ViTArch(**SHAPE, rope={})
    budget = MacBudget.of(arch)
    rules = SelectionRules(*levels, 4, 8, divisor)
    given = scores(arch)
    most = budget.reduction_at(budget.floors(rules))
    for target in (0.3 * most, 0.9 * most):
        selection = select(given, budget, target, rules)
        for block in selection.kept:
            for mask in (block.q, block.k):
                first, second = np.split(mask, 2, axis=1)
                assert (first == second).all()
        kept = removable(
            selection.kept, given, rules.divisor, budget.constraints
        )
        for block in kept:
            assert (
                np.split(block.q, 2, 1)[0] == np.split(block.q, 2, 1)[1]
            ).all()
            assert (block.q == block.k).all()
        # what is said to be saved is, of an arch that can be built
        names = ('qk_dims', 'v_dims', 'mlp_dims')
        dims = dict(zip(names, zip(*kept_widths(kept))))
        assert all(width % 2 == 0 for width in dims['qk_dims'])
        macs = arch.replace(**dims).macs()
        assert macs <= (1 - target) * budget.dense + 1
        if all(levels):
            assert macs == budget.start - selection.saved
            for width in dims['qk_dims']:
                assert width == 16 or width % divisor == 0


def test_queries_and_keys_may_stay():
    demands = Constraints(whole=('qk',))
    assert demands.keeps('q') and demands.keeps('k') and not demands.keeps('v')
    arch = ViTArch(**SHAPE)
    budget = replace(MacBudget.of(arch), constraints=demands)
    rules = SelectionRules(min_head_dim=1)
    assert [floor[0] for floor in budget.floors(rules)] == [16] * 3
    selection = select(scores(arch), budget, 0.3, rules)
    assert all(b.q.all() and b.k.all() for b in selection.kept)
    assert not all(b.v.all() for b in selection.kept)


def test_pairs_go_by_their_mean():
    """The pair whose channels are 0 and 9 stays, that of 3 and 4 goes."""
    arch = ViTArch(24, 1, 1, head_dim=4, mlp_dims=2, img_size=16, rope={})
    q = np.array([[0.0, 3, 9, 4]])
    block = Kinds(q, q, np.full((1, 4), 99.0), np.full((1, 2), 99.0))
    budget = MacBudget.of(arch)
    rules = SelectionRules(min_head_dim=1, min_mlp_dim=1)
    [kept] = select([block], budget, 1e-6, rules).kept
    assert kept.q.tolist() == [[True, False, True, False]]
    cost = arch.macs() - arch.replace(qk_dims=2).macs()
    assert budget.costs[0].qk * 2 == cost


@pytest.mark.parametrize('kind', ['v', 'mlp'])
def test_what_a_norm_sees_stays(kind):
    norm = dict(v='attn_norm', mlp='mlp_norm')[kind]
    arch = ViTArch(**SHAPE, **{norm: True})
    budget, rules = MacBudget.of(arch), SelectionRules(min_head_dim=1)
    floors = np.array(budget.floors(rules))
    place = ('qk', 'v', 'mlp').index(kind)
    assert (floors[:, place] == np.array(budget.widths)[:, place]).all()
    most = budget.reduction_at(budget.floors(rules))
    selection = select(scores(arch), budget, most, rules)
    assert all(getattr(block, kind).all() for block in selection.kept)
    with pytest.raises(ConfigError, match=f'channels of {kind} stay'):
        select(scores(arch), budget, most + 0.01, rules)
    # whatever a mask says
    masks = [Kinds(*(np.zeros_like(p, bool) for p in b)) for b in scores(arch)]
    kept = removable(masks, scores(arch), constraints=budget.constraints)
    assert all(getattr(block, kind).all() for block in kept)


def test_pairs_share_what_they_cost():
    """The k-th pairs of all heads go together, not the k-th channels."""
    arch = ViTArch(24, 1, 2, head_dim=4, mlp_dims=2, img_size=16, rope={})
    q = np.array([[0.0, 4, 6, 8], [1, 9, 3, 5]])  # pairs: 3, 6 and 2, 7
    block = Kinds(q, q, np.ones((2, 4)), np.ones((1, 2)))
    budget = MacBudget.of(arch)
    [found] = per_cost([block], budget)
    cost = budget.costs[0].qk
    assert (found.q * cost).round(9).tolist() == [[5, 13] * 2] * 2
    assert (found.k == found.q).all() and found.v.shape == (2, 4)


@torch.no_grad()
def test_a_single_partner_would_not_fold():
    """A compactor mixes channels before they are turned. With one column of a
    pair at zero the turned pair still is none of one channel: logits tell
    distances by it. With both at zero it is gone, and exactly so."""
    torch.manual_seed(0)
    model = ViT(ViTArch(**SHAPE, rope={})).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    compactors = attach_compactors(model)
    for block in compactors:
        for compactor in block:
            nn.init.normal_(compactor.weight, std=0.4)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    whole = [
        Kinds(*(np.ones(c.kept.shape, bool) for c in block))
        for block in compactors
    ]
    for gone, exact in (([3], False), ([3, 11], True)):
        kept = [b._replace(q=b.q.copy(), k=b.k.copy()) for b in whole]
        for block in kept:
            block.q[:, gone] = block.k[:, gone] = False
        set_kept_(compactors, kept)
        arch, tensors = fold(model)
        assert arch.qk_dims == ((14,) if exact else (16,)) * 3
        small = ViT(arch).double().eval()
        small.load_state_dict(tensors)
        with without(compactors, kept):
            expected = model(x)[0][0]
        error = (small(x)[0][0] - expected).abs().max() / expected.abs().max()
        assert (error <= 1e-12) == exact
        if exact:
            expected = [i for i in range(8) if i != 3]
            index = tensors['blocks.1.attn.rope_index']
            assert index.tolist() == [expected] * 2


@torch.no_grad()
def test_frequencies_are_those_of_each_head():
    """Pruned twice, by heads that keep other pairs each time."""
    torch.manual_seed(0)
    model = ViT(ViTArch(**SHAPE, rope={})).double().eval()
    chosen = [
        np.array([[0, 1, 1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 0, 1, 0, 0]], bool),
        np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1]], bool),
    ]
    for units in chosen:
        compactors = attach_compactors(model)
        kept = []
        for block in compactors:
            q = np.tile(units, (1, 2))
            kept.append(
                Kinds(q, q, *(np.ones(c.kept.shape, bool) for c in block[2:]))
            )
        set_kept_(compactors, kept)
        arch, tensors = fold(model)
        model = ViT(arch).double().eval()
        model.load_state_dict(tensors)
    index = tensors['blocks.2.attn.rope_index']
    assert index.tolist() == [[1, 4, 5], [1, 2, 5]]


@torch.no_grad()
def test_gates_count_as_much_as_values():
    model = ViT(ViTArch(**SHAPE, mlp='swiglu')).double()
    before = magnitudes(model)[0].mlp[0]
    fc1 = model.blocks[0].mlp.fc1.weight
    fc1[5] *= 2  # a gate
    fc1[32 + 6] *= 2  # a value
    ratio = magnitudes(model)[0].mlp[0] / before
    np.testing.assert_allclose(ratio[[5, 6]] / ratio[0], 2)
