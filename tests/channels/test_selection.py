"""The selection against hand-worked steps and a literal walk."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.channels import (
    Kinds,
    MacBudget,
    SelectionRules,
    kept_widths,
    pruned_arch,
    removable,
    select,
)
from mmvitcompress.channels.budget import ChannelCosts
from mmvitcompress.errors import ConfigError

FREE = SelectionRules(min_head_dim=1, min_mlp_dim=1)


def counted(kept):
    """(Q/K, V, MLP) that can be removed: in Q and K, in every head."""
    gone = (~(kept.q | kept.k), ~kept.v, ~kept.mlp)
    return [int(part.sum(1).min()) for part in gone]


def walk(scores, budget, reduction, rules):
    """The paper's procedure, word for word; slow."""
    scores = [Kinds(*(part.copy() for part in block)) for block in scores]
    if rules.attention_level:
        for block in scores:
            mean = (block.q + block.k) / 2
            block.q[:], block.k[:] = mean, mean
    channels = [
        (block, kind, head, channel)
        for block, kinds in enumerate(scores)
        for kind, part in enumerate(kinds)
        for head, channel in itertools.product(*map(range, part.shape))
    ]
    score = {c: scores[c[0]][c[1]][c[2:]] for c in channels}
    masked = set()

    def full(block, kind, head):
        """Whether a group is at its floor."""
        width = scores[block][kind].shape[1]
        least = rules.min_mlp_dim if kind == 3 else rules.min_head_dim
        gone = sum(c[:3] == (block, kind, head) for c in masked)
        return gone >= width - min(least, width)

    def saved():
        return sum(
            count * cost
            for block, costs in enumerate(budget.costs)
            for count, cost in zip(counted(masks()[block]), costs)
        )

    def masks():
        kept = [Kinds(*(np.ones(p.shape, bool) for p in b)) for b in scores]
        for block, kind, head, channel in masked:
            kept[block][kind][head, channel] = False
        return kept

    wanted = budget.saving_for(reduction)
    walked = sorted(channels, key=score.get)  # stable: ties by position
    for channel in walked:
        if saved() >= wanted:
            break
        block, kind, head, _ = channel
        if channel in masked or full(block, kind, head):
            continue
        added = [channel]
        if kind < 3 and rules.head_level:
            for other in range(len(scores[block][kind])):
                if other != head:
                    left = [
                        c
                        for c in channels
                        if c[:3] == (block, kind, other) and c not in masked
                    ]
                    added.append(min(left, key=score.get))
        if kind < 2 and rules.attention_level:
            added += [(b, 1 - k, *rest) for b, k, *rest in added]
        masked.update(added)
    return masks(), saved()


def same(kept, expected):
    return all(
        (ours == theirs).all()
        for block, other in zip(kept, expected)
        for ours, theirs in zip(block, other)
    )


# -- by hand ------------------------------------------------------------------


def by_hand(reduction, rules=FREE, **changes):
    """One block of two heads, width 3; every removal saves 10 of 1000."""
    budget = MacBudget(1000, 1000, (ChannelCosts(10, 10, 10),), ((3, 3, 4),))
    block = Kinds(
        # the means are (.5, .3, .9) and (.8, .6, .7)
        q=np.array([[0.4, 0.5, 0.8], [0.9, 0.6, 0.5]]),
        k=np.array([[0.6, 0.1, 1.0], [0.7, 0.6, 0.9]]),
        v=np.array([[0.95, 0.35, 2.0], [3.0, 4.0, 5.0]]),
        mlp=np.array([[0.2, 0.4, 0.55, 9.0]]),
    )
    return select([block._replace(**changes)], budget, reduction, rules)


@pytest.mark.parametrize(
    'reduction, q, v, mlp',
    [
        # .2: hidden channel 0, alone
        (0.01, [(), ()], [(), ()], (0,)),
        # .3: Q/K, head 0, position 1; in head 1 the lowest is position 1 (.6)
        (0.02, [(1,), (1,)], [(), ()], (0,)),
        # .35: V, head 0, channel 1, with head 1's channel 0, whose 3 is high
        (0.03, [(1,), (1,)], [(1,), (0,)], (0,)),
        # .4: hidden channel 1
        (0.04, [(1,), (1,)], [(1,), (0,)], (0, 1)),
        # .5: Q/K, head 0, position 0; in head 1 position 2 (.7) comes next
        (0.05, [(0, 1), (1, 2)], [(1,), (0,)], (0, 1)),
        # .55: hidden channel 2; .6 and .7 are masked already
        (0.06, [(0, 1), (1, 2)], [(1,), (0,)], (0, 1, 2)),
        # .8 and .9 would empty the Q/K heads; .95: V, with head 1's 4
        (0.07, [(0, 1), (1, 2)], [(0, 1), (0, 1)], (0, 1, 2)),
    ],
)
def test_steps_worked_out_on_paper(reduction, q, v, mlp):
    result = by_hand(reduction)
    [kept] = result.kept
    gone = [[tuple(np.flatnonzero(~row)) for row in part] for part in kept]
    assert gone == [q, q, v, [mlp]]
    assert result.saved == round(1000 * reduction)
    assert result.reduction == pytest.approx(reduction)


def test_no_reduction_masks_nothing():
    result = by_hand(0.0)
    assert all(part.all() for part in result.kept[0])
    assert (result.saved, result.reduction) == (0, 0.0)


def test_without_head_level_heads_go_by_themselves():
    """Head 0's channels go at .3, .35 and .5; none can be removed until head
    1 has masked one, too."""
    rules = SelectionRules(head_level=False, min_head_dim=1, min_mlp_dim=1)
    [kept] = by_hand(0.04, rules).kept
    gone = [[tuple(np.flatnonzero(~row)) for row in part] for part in kept]
    # hidden channels count for .2, .4, .55; Q/K of both heads at .6 (head 1,
    # position 1), by when V's .35 is masked but of no use
    assert gone == [[(0, 1), (1,)]] * 2 + [[(1,), ()], [(0, 1, 2)]]


def test_without_attention_level_q_and_k_go_by_themselves():
    rules = SelectionRules(attention_level=False, min_head_dim=1)
    # K .1 (head 0, position 1) with head 1's .6 (position 1) is of no use
    # alone; V's .35 is (the MLP is at its floor of 64)
    [kept] = by_hand(0.01, rules).kept
    gone = [[tuple(np.flatnonzero(~row)) for row in part] for part in kept]
    assert gone == [[(), ()], [(1,), (1,)], [(1,), (0,)], [()]]
    # Q .4 (head 0, position 0) with head 1's .5 (position 2) is of no use
    # either; Q .5 (position 1) with head 1's .6 (position 1) is
    [kept] = by_hand(0.02, rules).kept
    gone = [[tuple(np.flatnonzero(~row)) for row in part] for part in kept]
    assert gone[:2] == [[(0, 1), (1, 2)], [(1,), (1,)]]
    assert counted(kept) == [1, 1, 0]


def test_divisor_lets_channels_wait_for_their_bundle():
    rules = SelectionRules(min_head_dim=1, min_mlp_dim=1, divisor=2)
    result = by_hand(0.01, rules)
    [kept] = result.kept
    # heads of 3: one goes, at .3, since 2 are left; hidden: two go, at .4
    assert kept_widths([kept]) == [(2, 3, 4)]
    result = by_hand(0.03, rules)
    # .35 brings V to 2 (20 saved), then .4 the hidden pair (40 saved)
    assert kept_widths(result.kept) == [(2, 2, 2)]
    assert result.saved == 40


def test_unreachable_target_says_what_is_reachable():
    with pytest.raises(ConfigError, match=r'8\.00% .* it is 7\.00%'):
        by_hand(0.08)


# -- properties ---------------------------------------------------------------


@st.composite
def problems(draw, consistent=False):
    heads = draw(st.integers(1, 3))
    depth = draw(st.integers(1, 3))
    widths = st.tuples(*[st.integers(1, 7)] * 2, st.integers(1, 12))
    widths = [draw(widths) for _ in range(depth)]
    qk, v, mlp = zip(*widths)
    arch = ViTArch(
        embed_dim=12,
        depth=depth,
        num_heads=heads,
        qk_dims=qk,
        v_dims=v,
        mlp_dims=mlp,
        patch_size=4,
        img_size=16,
        token_merging=dict(layers=draw(st.sampled_from([(), (1,), (depth,)]))),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    coarse = draw(st.booleans())  # makes many ties

    def score(*shape):
        values = rng.random(shape)
        return np.round(values * 4) / 4 if coarse else values

    scores = [
        Kinds(score(heads, q), score(heads, q), score(heads, v), score(1, m))
        for q, v, m in widths
    ]
    flags = (True, True) if consistent else draw(
        st.tuples(st.booleans(), st.booleans())
    )  # fmt: skip
    rules = SelectionRules(
        *flags,
        min_head_dim=draw(st.integers(1, 3)),
        min_mlp_dim=draw(st.integers(1, 4)),
        divisor=draw(st.integers(1, 4)) if consistent else 1,
    )
    budget = MacBudget.of(arch)
    most = budget.reduction_at(budget.floors(rules))
    least = budget.reduction()
    part = draw(st.floats(0, 1))
    target = least + part * (most - least)
    return arch, scores, budget, target, rules


@given(problems())
@settings(max_examples=150, deadline=None)
def test_selection_equals_the_literal_walk(problem):
    _, scores, budget, target, rules = problem
    ours = select(scores, budget, target, rules)
    kept, saved = walk(scores, budget, target, rules)
    assert same(ours.kept, kept)
    assert ours.saved == saved


@given(problems(consistent=True))
@settings(max_examples=150, deadline=None)
def test_selection_keeps_its_promises(problem):
    arch, scores, budget, target, rules = problem
    result = select(scores, budget, target, rules)
    largest = 0
    for kept, cost, widths in zip(result.kept, budget.costs, budget.widths):
        assert (kept.q == kept.k).all()
        for part, saved, width in zip(
            (kept.q, kept.v, kept.mlp), cost, widths
        ):
            counts = set(part.sum(1))
            assert len(counts) == 1
            [count] = counts
            least = rules.min_mlp_dim if part is kept.mlp else None
            assert count >= min(width, least or rules.min_head_dim)
            assert count == width or count % rules.divisor == 0
            if count < width:
                largest = max(largest, saved * rules.divisor)
    # what is said to be saved is what the closed form says
    pruned = pruned_arch(arch, result.kept)
    assert arch.macs() - pruned.macs() == result.saved
    assert result.reduction == pytest.approx(
        1 - pruned.macs() / budget.dense, abs=1e-12
    )
    # the target is reached, and not passed by a whole group
    one = 1 / budget.dense  # one MAC
    assert result.reduction > target - one
    assert budget.reduction(result.saved - largest) < target + one
    # all that is masked can be removed
    assert same(removable(result.kept, scores, rules.divisor), result.kept)


@given(problems())
@settings(max_examples=50, deadline=None)
def test_claimed_savings_can_be_removed(problem):
    """Without consistency, too, the MACs are those of a model that exists."""
    arch, scores, budget, target, rules = problem
    result = select(scores, budget, target, rules)
    removed = removable(result.kept, scores)
    assert arch.macs() - pruned_arch(arch, removed).macs() == result.saved
    for masks, final in zip(result.kept, removed):
        for mask, kept in zip(masks, final):
            assert (kept | ~mask).all(), 'a kept channel was removed'


@given(problems(consistent=True))
@settings(max_examples=50, deadline=None)
def test_floors_are_reached_and_not_passed(problem):
    _, scores, budget, _, rules = problem
    floors = budget.floors(rules)
    most = budget.reduction_at(floors)
    result = select(scores, budget, most, rules)
    assert kept_widths(result.kept) == floors
    with pytest.raises(ConfigError, match='out of reach'):
        select(scores, budget, most + 1e-4, rules)
    with pytest.raises(ConfigError, match='out of reach'):
        budget.check(most + 1e-4, floors)


def test_a_rising_target_only_adds_channels():
    arch = get_arch('vit_micro')
    budget, scores = MacBudget.of(arch), random_scores(arch)
    previous = None
    for target in np.linspace(0.0, 0.6, 9):
        kept = select(scores, budget, target).kept
        if previous is not None:
            for block, before in zip(kept, previous):
                for part, wider in zip(block, before):
                    assert (wider | ~part).all()
        previous = kept


# -- real models --------------------------------------------------------------


def random_scores(arch, seed=0):
    rng = np.random.default_rng(seed)
    heads = arch.num_heads
    return [
        Kinds(
            rng.random((heads, qk)),
            rng.random((heads, qk)),
            rng.random((heads, v)),
            rng.random((1, mlp)),
        )
        for qk, v, mlp in zip(arch.qk_dims, arch.v_dims, arch.mlp_dims)
    ]


@pytest.mark.parametrize('divisor', [1, 8])
@pytest.mark.parametrize(
    'name, layers, target',
    [
        # CDCP alone, then CAIT (Table II: 0.6, 2.1 and 7.4 G)
        ('deit_tiny', (), 0.312),
        ('deit_small', (), 0.381),
        ('deit_tiny', (5, 9), 1 - 0.6 / 1.258),
        ('deit_small', (5, 9), 1 - 2.1 / 4.608),
        ('deit_base', (5, 9), 1 - 7.4 / 17.583),
        ('lvvit_small', (6, 12), 0.5),
    ],
)
def test_the_papers_targets_are_met(name, layers, target, divisor):
    """Within 0.3 points, multiples of 8 included."""
    arch = get_arch(name).replace(token_merging=dict(layers=layers))
    budget = MacBudget.of(arch, 224, 1000)
    rules = SelectionRules(divisor=divisor)
    result = select(random_scores(arch), budget, target, rules)
    pruned = pruned_arch(arch, result.kept)
    dense = get_arch(name).macs(224, 1000)
    reached = 1 - pruned.macs(224, 1000) / dense
    assert reached == pytest.approx(result.reduction, abs=1e-12)
    assert target <= reached < target + 0.003


def test_costs_are_the_closed_form():
    """2·n·D for each of h heads and n² for each, at the tokens of a block."""
    arch = get_arch('deit_small').replace(token_merging=dict(layers=(5, 9)))
    budget = MacBudget.of(arch, 224)
    for block, tokens in ((0, 197), (4, 99), (11, 50)):
        head = 6 * (2 * tokens * 384 + tokens**2)
        assert budget.costs[block] == (head, head, 2 * tokens * 384)
    assert budget.reduction() == pytest.approx(0.411, abs=1e-3)
    assert budget.dense == get_arch('deit_small').macs(224)


def test_slimmed_tokens_count_as_well():
    arch = get_arch('deit_tiny').replace(patch_slimming=dict(keep_rate=0.5))
    budget = MacBudget.of(arch, 224)
    assert budget.costs[4].mlp == 2 * (98 + 1) * 192
    assert budget.dense == get_arch('deit_tiny').macs(224)


def test_selection_is_fast_enough_to_repeat_every_25_iterations():
    arch = get_arch('deit_small').replace(token_merging=dict(layers=(5, 9)))
    budget, scores = MacBudget.of(arch, 224), random_scores(arch)
    times = []
    for _ in range(7):
        start = time.thread_time()  # of this core, whoever else is busy
        select(scores, budget, 0.54)
        times.append(time.thread_time() - start)
    assert min(times) < 0.020


@pytest.mark.parametrize(
    'setting', [dict(min_head_dim=0), dict(divisor=0), dict(min_mlp_dim=2.5)]
)
def test_bad_rules_are_named(setting):
    [(name, value)] = setting.items()
    with pytest.raises(ConfigError, match=f'{name} .* but got {value}'):
        SelectionRules(**setting)


@pytest.mark.parametrize('target', [0, 1, 50])
def test_bad_targets_are_named(target):
    budget = MacBudget.of(get_arch('vit_micro'))
    with pytest.raises(ConfigError, match=f'between 0 and 1 .* got {target}'):
        budget.check(target, budget.widths)


@pytest.mark.parametrize('name', ['qk_norm', 'attn_norm', 'mlp_norm'])
def test_what_a_norm_sees_stays_whole(name):
    """Selected, by floors, in whole and folded."""
    arch = ViTArch(24, 3, 4, patch_size=4, img_size=20, **{name: True})
    budget = MacBudget.of(arch)
    rng = np.random.default_rng(0)
    scores = [
        Kinds(*rng.random((3, 4, 6)), rng.random((1, 96))) for _ in range(3)
    ]
    rules = SelectionRules(min_head_dim=2, min_mlp_dim=8)
    kept = select(scores, budget, 0.15, rules).kept
    pruned = pruned_arch(arch, removable(kept, scores, 1, budget.constraints))
    whole = dict(qk_norm='qk_dims', attn_norm='v_dims', mlp_norm='mlp_dims')
    for key in whole.values():
        same = getattr(pruned, key) == getattr(arch, key)
        assert same == (key == whole[name])
    assert pruned.macs() <= 0.85 * arch.macs()
    most = budget.reduction_at(budget.floors(rules))
    select(scores, budget, most, rules)
    with pytest.raises(ConfigError, match='out of reach'):
        select(scores, budget, most + 0.01, rules)
