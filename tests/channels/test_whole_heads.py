"""Heads that go in whole: the selection by a walk, and nets that are left."""

import json

import numpy as np
import pytest
import torch
from timm_vits import images, make
from torch import nn

import mmvitcompress
from mmvitcompress.analysis.macs import count_macs, count_params
from mmvitcompress.arch.swin import SwinArch
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import arch_from_dict
from mmvitcompress.channels import (
    Kinds,
    MacBudget,
    SelectionRules,
    attach_compactors,
    fold,
    kept_widths,
    pruned_arch,
    removable,
    select,
    set_kept_,
    shrink_masked_,
)
from mmvitcompress.channels.budget import ChannelCosts
from mmvitcompress.channels.importance import per_cost
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.checkpoints.widths import read_widths
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedViT
from mmvitcompress.models.vit import ViT

ARCH = ViTArch(
    24,
    3,
    4,
    patch_size=4,
    img_size=20,
    qk_dims=(6, 4, 6),
    v_dims=(6, 6, 2),
    mlp_dims=(48, 24, 32),
)
RULES = SelectionRules(whole_heads=True, min_mlp_dim=8, divisor=8)


def scores_of(arch, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Kinds(
            *(rng.random((4, qk)) for _ in range(2)),
            rng.random((4, v)),
            rng.random((1, mlp)),
        )
        for qk, v, mlp in zip(arch.qk_dims, arch.v_dims, arch.mlp_dims)
    ]


def walk(scores, budget, reduction):
    """Units in ascending order of scores, each masked unless it has to stay.

    Hidden channels wait until eight have come together.
    """
    units = []
    for block, (kinds, cost) in enumerate(zip(scores, budget.costs)):
        for head in range(4):
            q, k, v = (part[head] for part in kinds[:3])
            costs = [cost.qk / 2] * (len(q) + len(k)) + [cost.v] * len(v)
            score = np.average(np.concatenate([q, k, v]), weights=costs)
            units.append((score, block, 'head', head, sum(costs) / 4))
        for place, score in enumerate(kinds.mlp[0]):
            units.append((score, block, 'mlp', place, cost.mlp))
    gone, saved = [], 0
    waiting = {block: [] for block in range(len(scores))}
    for _, block, kind, place, cost in sorted(units, key=lambda u: u[0]):
        if saved >= budget.saving_for(reduction):
            break
        if kind == 'head':
            if sum(u[:2] == (block, 'head') for u in gone) < 3:
                gone.append((block, kind, place))
                saved += cost
            continue
        left = scores[block].mlp.size - 8
        left -= sum(u[:2] == (block, 'mlp') for u in gone)
        waiting[block].append(place)
        if len(waiting[block]) == 8 and left > 0:
            gone += [(block, kind, p) for p in waiting[block]]
            saved += 8 * cost
            waiting[block] = []
    return {*gone}, saved


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('reduction', [0.1, 0.3, 0.6])
def test_selection_is_the_walk(seed, reduction):
    budget, scores = MacBudget.of(ARCH), scores_of(ARCH, seed)
    result = select(scores, budget, reduction, RULES)
    gone, saved = walk(scores, budget, reduction)
    found = set()
    for block, kept in enumerate(result.kept):
        for part in kept[:3]:  # all of a head, or nothing
            assert (part.all(1) == kept.v[:, 0]).all()
            assert (part.any(1) == kept.v[:, 0]).all()
        found |= {(block, 'head', h) for h in np.flatnonzero(~kept.v[:, 0])}
        found |= {(block, 'mlp', p) for p in np.flatnonzero(~kept.mlp[0])}
    assert found == gone and result.saved == saved
    pruned = pruned_arch(ARCH, result.kept)
    assert ARCH.macs() - pruned.macs() == result.saved
    widths = kept_widths(result.kept)
    assert budget.reduction_at(widths) == pytest.approx(result.reduction)
    final = removable(result.kept, scores, 8)
    assert all(
        (a == b).all()
        for pair in zip(final, result.kept)
        for a, b in zip(*pair)
    )


def test_the_lowest_head_goes_first():
    """Heads of 0.5 and 0.4; Q and K count half of what V costs here."""
    costs = (ChannelCosts(10, 10, 10),)
    budget = MacBudget(1000, 1000, costs, ((1, 1, 2),), heads=(2,))
    half, one = np.array([[0.5], [0.1]]), np.array([[0.5], [0.7]])
    block = Kinds(half, half, one, np.array([[0.45, 9.0]]))
    rules = SelectionRules(whole_heads=True, min_mlp_dim=1)
    first = select([block], budget, 0.01, rules)
    assert first.kept[0].v[:, 0].tolist() == [True, False]
    assert first.saved == 10 and first.kept[0].mlp.all()
    second = select([block], budget, 0.015, rules)
    assert second.kept[0].mlp[0].tolist() == [False, True]
    most = budget.reduction_at(budget.floors(rules))
    assert most == pytest.approx(0.02)
    with pytest.raises(ConfigError, match='out of reach'):
        select([block], budget, 0.021, rules)


def test_costs_are_those_of_each_head():
    budget, scores = MacBudget.of(ARCH), scores_of(ARCH)
    found = per_cost(scores, budget, whole_heads=True)[0]
    cost, own = budget.costs[0], scores[0]
    np.testing.assert_allclose(found.v, own.v / (cost.v / 4))
    np.testing.assert_allclose(found.q, (own.q + own.k) / 2 / (cost.qk / 4))
    np.testing.assert_allclose(found.mlp, own.mlp / cost.mlp)


@pytest.fixture(
    params=[
        {},
        dict(rope={}, head_dim=8),
        dict(mlp='swiglu'),
        dict(mlp_norm=True),
        dict(qk_norm=True, qk_dims=6),
    ],
    ids=lambda values: next(iter(values), 'plain'),
)
def folded(request):
    """A net, some of whose heads are zero, and what is left of it."""
    torch.manual_seed(0)
    whole = ARCH.replace(**request.param)
    model = ViT(whole).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    kept = select(scores_of(whole), MacBudget.of(whole), 0.25, RULES).kept
    compactors = attach_compactors(model)
    set_kept_(compactors, kept)
    shrink_masked_(compactors, 10.0)
    arch, tensors = fold(model)
    assert arch == pruned_arch(whole, kept) and min(arch.heads) < 4
    assert not whole.mlp_norm or arch.mlp_dims == whole.mlp_dims
    return model, arch, tensors


def test_what_is_left_computes_the_same(folded):
    model, arch, tensors = folded
    small = ViT(arch).double().eval()
    small.load_state_dict(tensors)
    assert [b.attn.num_heads for b in small.blocks] == [*arch.heads]
    x = torch.randn(2, 3, 20, 20, dtype=torch.float64)
    with torch.no_grad():
        found, expected = small(x)[0][0], model(x)[0][0]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    'method',
    [
        {},
        dict(token_reorganization=dict(layers=(2,))),
        dict(token_energy=dict(layers=(2,))),
        dict(token_evolution=dict(first=2)),
        dict(token_rates=dict(keep_rate=0.7)),
    ],
    ids=lambda method: next(iter(method), 'dense'),
)
def test_costs_are_those_that_run(folded, method):
    arch = folded[1].replace(**method)
    model = ViT(arch).eval()
    x = torch.randn(1, 3, 20, 20)
    assert count_macs(model, x).total == arch.macs()
    assert count_params(model)['other'] == arch.params()


def test_archs_and_checkpoints_carry_heads(folded, tmp_path):
    _, arch, tensors = folded
    content = json.loads(json.dumps(arch.to_dict()))
    assert arch_from_dict(content) == arch and hash(arch)
    assert 'heads' not in ARCH.to_dict()
    assert ARCH.replace(heads=4) == ARCH
    path = tmp_path / 'heads.pth'
    write_checkpoint(path, tensors, arch)
    model = CompressedViT(checkpoint=str(path), final_norm=True)
    assert model.arch == arch
    found = read_widths(path)
    left = np.array(arch.heads) / 4 * ARCH.v_dims / arch.head_dim
    np.testing.assert_allclose(found.shares[:, 1], left)
    with pytest.raises(ConfigError, match='must not exceed num_heads'):
        ARCH.replace(heads=5)


@pytest.mark.parametrize('criterion', ['magnitude', 'taylor'])
@pytest.mark.parametrize('steps', [1, 2])
def test_compress_by_whole_heads(criterion, steps):
    theirs = make(depth=3)
    calibration = images(theirs, 5) if criterion == 'taylor' else None
    ours = mmvitcompress.compress(
        theirs,
        channels=dict(
            target=0.45,
            criterion=criterion,
            whole_heads=True,
            min_mlp_dim=16,
            steps=steps,
        ),
        calibration=calibration,
    )
    dense = mmvitcompress.compress(theirs)
    assert ours.macs() <= 0.55 * dense.macs()
    assert ours.arch.qk_dims == dense.arch.qk_dims
    assert ours.arch.heads and min(ours.arch.heads) >= 1
    assert ours(images(theirs, 2)).isfinite().all()


def test_norms_over_all_heads_keep_them():
    budget = MacBudget.of(ARCH.replace(attn_norm=True))
    with pytest.raises(ConfigError, match='no norm over all of them'):
        budget.floors(RULES)


def test_swins_keep_their_heads():
    arch = SwinArch(
        embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=3
    )
    budget = MacBudget.of(arch, 64)
    with pytest.raises(ConfigError, match='needs a plain ViT'):
        budget.floors(RULES)
