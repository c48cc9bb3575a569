"""A-ViT against its equations, token by token."""

import math

import pytest
import torch
from torch import nn

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.deploy.network import DeployedNetwork, GraphSpec
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import TokenState, restore
from mmvitcompress.tokens.losses import collect_losses
from mmvitcompress.tokens.methods.a_vit import Halting, TokenHalting

KEY = TokenHalting.key
ARCH = ViTArch(24, 4, 3, patch_size=4, img_size=20)
GATE = dict(scale=1.5, shift=-0.7, eps=0.05)


def build(train=False, **spec):
    torch.manual_seed(0)
    model = ViT(ARCH.replace(**{KEY: GATE | spec}), final_norm=False).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.train(train)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, 20, 20, generator=generator).double()


def halted(model, image, blocks, spec):
    """Eq. 4 to 9 for one image, whose tokens leave one by one.

    Returns:
        The mean (D) of each token's states; for each token the blocks that it
        ran in, and what its scores left of 1 in the last of them.
    """
    x, _ = model.embed(image)
    count = x.shape[1]
    states = {k: x[0, k] for k in range(count)}
    scores = {k: [] for k in range(count)}
    means = {k: 0 for k in range(count)}
    depths, rests = {}, {}
    for layer in range(1, blocks + 1):
        room = count - 1
        if spec.rates is not None:
            room = math.ceil(spec.rates[layer - 1] * room - 1e-9)
        patches = [k for k in states if k]
        # at least one patch is always given to a block, stopped or not
        for k in sorted(patches, key=lambda k: -sum(scores[k]))[
            : max(0, len(patches) - room)
        ]:
            # the last state takes its score's place as well
            means[k] = means[k] + (rests[k] - scores[k][-1]) * states.pop(k)
        running = [*states]
        y = model.blocks[layer - 1](
            torch.stack([states[k] for k in running])[None]
        )
        for k, state in zip(running, y[0]):
            score = 0.0
            if layer >= spec.first:
                gate = spec.scale * state[0].item() + spec.shift
                score = 1 / (1 + math.exp(-gate))
            rests[k] = 1 - sum(scores[k])
            depths[k] = layer
            stops = sum(scores[k]) + score >= 1 - spec.eps
            if layer == blocks or stops:
                means[k] = means[k] + rests[k] * state
                del states[k]
            else:
                states[k] = state
                means[k] = means[k] + score * state
                scores[k].append(score)
    means = torch.stack([means[k] for k in range(count)])
    return means, *(
        torch.tensor([part[k] for k in range(count)]).double()
        for part in (depths, rests)
    )


ROOMS = {
    'all': dict(),
    'late': dict(first=2),
    'few': dict(rates=(1, 0.8, 0.6, 0.5)),
}


@torch.no_grad()
@pytest.mark.parametrize('room', ROOMS.values(), ids=ROOMS)
def test_outputs_are_means_of_states(room, images):
    model = build(**room)
    spec = getattr(model, KEY).spec
    outputs = model.intermediates(images, range(4))
    stopped = 0
    for blocks, (tokens, state) in enumerate(outputs, 1):
        maps = restore(tokens[:, 1:], state).flatten(2).transpose(1, 2)
        for i in range(3):
            expected, depths, _ = halted(
                model, images[i : i + 1], blocks, spec
            )
            torch.testing.assert_close(tokens[i, 0], expected[0])
            torch.testing.assert_close(maps[i], expected[1:])
            stopped += int((depths < blocks).sum())
    assert stopped > 20  # and not all of them by the same block
    assert len(depths.unique()) > 1


@torch.no_grad()
@pytest.mark.parametrize('room', ROOMS.values(), ids=ROOMS)
def test_what_leaves_at_once_changes_no_number(room, images):
    """Batches are masked; alone, an image meets its blocks with fewer."""
    masked, dropping = build(**room), build(dynamic=True, **room)
    met = []
    for block in dropping.blocks:
        block.register_forward_pre_hook(
            lambda _, args: met[-1].append(args[0].shape[1] - 1)
        )
    met.append([])
    expected = masked.intermediates(images, (1, 3))
    together = dropping.intermediates(images, (1, 3))
    counts = masked.arch.counts()
    assert met.pop() == [count.attention for count in counts]
    for (a, s), (b, t) in zip(together, expected):
        assert torch.equal(a, b)
        assert torch.equal(restore(a[:, 1:], s), restore(b[:, 1:], t))
    for i in range(3):
        met.append([])
        alone = dropping.intermediates(images[i : i + 1], (1, 3))
        for (a, s), (b, t) in zip(alone, expected):
            torch.testing.assert_close(a[0, 0], b[i, 0])
            found, whole = restore(a[:, 1:], s), restore(b[:, 1:], t)
            torch.testing.assert_close(found[0], whole[i])
    assert len({tuple(each) for each in met}) > 1
    most = [count.attention for count in counts]
    for each in met:
        assert all(a <= b for a, b in zip(each, most))
    assert min(map(sum, met)) < sum(most)


def test_training_masks_and_drops_none(images):
    model = build(True, rates=(1, 0.7, 0.4, 0.2))
    tokens, state = model(images)[0]
    assert tokens.shape[1] == 26 and not state.undo
    whole = build(rates=None)
    torch.testing.assert_close(tokens, whole(images)[0][0])


def test_losses_are_the_equations(images):
    """Eq. 10 for how long tokens run, and the divergence of Eq. 12."""
    model = build(True, ponder_weight=0.3, prior_weight=0.7, depth=2.5)
    spec = getattr(model, KEY).spec
    with collect_losses() as found:
        state = model(images)[0][1]
    with torch.no_grad():
        each = [halted(model, images[i : i + 1], 4, spec) for i in range(3)]
    ponder = torch.stack([depths + rests for _, depths, rests in each]).mean()
    torch.testing.assert_close(found['ponder'].detach(), 0.3 * ponder)
    # a token that has stopped has no score
    scores = state.notes[KEY].scores
    depths = torch.stack([depths for _, depths, _ in each])
    share = [
        (score * (depths >= block)).mean().item()
        for block, score in enumerate(scores, 1)
    ]
    prior = [math.exp(-((block - 2.5) ** 2) / 2) for block in range(1, 5)]
    expected = sum(
        a / sum(share) * math.log(a / sum(share) * sum(prior) / b)
        for a, b in zip(share, prior)
    )
    assert found['halting_prior'].item() == pytest.approx(0.7 * expected)


def test_halting_by_hand():
    """Scores of 0.3, 0.5, 0.4 of one token, 0.995 and then none of another:
    3 blocks and 0.2, one block and 1."""
    spec = TokenHalting(ponder_weight=1.0)
    method = spec.build(ARCH, 4)
    scores = torch.tensor([[[0.3, 0.995]], [[0.5, 0.4]], [[0.4, 0.1]]])
    state = TokenState.start((1, 1))
    assert method.losses(state) == {}
    known = Halting(None, None, None, tuple(scores))
    found = method.losses(state.noting(KEY, known))
    assert found['ponder'].item() == pytest.approx((3.2 + 2) / 2)


def test_scores_learn(images):
    """Pondering costs, so that tokens come to stop earlier."""
    model = build(True, ponder_weight=1.0, prior_weight=0.0, shift=-3.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    found = []
    for _ in range(20):
        with collect_losses() as losses:
            model(images)
        found.append(losses['ponder'].item())
        optimizer.zero_grad()
        losses['ponder'].backward()
        optimizer.step()
    assert found[-1] < found[0] - 0.5


def test_scores_that_vanish_give_no_nan(images):
    model = build(True, shift=-1e9)
    with collect_losses() as found:
        model(images)
    sum(found.values()).backward()
    assert all(loss.isfinite() for loss in found.values())
    assert all(
        p.grad is None or p.grad.isfinite().all() for p in model.parameters()
    )


def test_costs_of_the_paper():
    """DeiT-Tiny 0.8 G, if tokens stop around block 7.4; masked, all 1.3."""
    arch = get_arch('deit_tiny')
    masked = arch.replace(**{KEY: {}})
    assert masked.macs(num_classes=1000) == arch.macs(num_classes=1000)
    spec = TokenHalting.at_depth(12, 7.4)
    halting = arch.with_reductions(spec)
    assert round(halting.macs(num_classes=1000) / 1e9, 1) == 0.8
    assert halting.params(1000) == arch.params(1000)


def test_room_is_what_the_gaussian_leaves():
    rates = TokenHalting.at_depth(4, 2.0).rates
    weights = [math.exp(-((block - 2) ** 2) / 2) for block in range(1, 5)]
    for block, rate in enumerate(rates):
        expected = sum(weights[block:]) / sum(weights)
        assert rate == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize('dynamic', ['batch', 'none'])
def test_what_depends_on_the_image_becomes_no_graph(dynamic, monkeypatch):
    spec = GraphSpec((20, 20), dynamic)
    room = dict(rates=(1, 0.8, 0.6, 0.4))
    DeployedNetwork(build(**room), 'backbone', spec)
    # nothing is copied, let alone traced
    monkeypatch.setattr('copy.deepcopy', None)
    with pytest.raises(ConfigError, match=f'False, and give {KEY}.rates'):
        DeployedNetwork(build(dynamic=True, **room), 'backbone', spec)


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(scale=0), 'scale must be'),
        (dict(shift='low'), 'shift must be a number'),
        (dict(eps=1), r'eps must lie in \[0, 1\)'),
        (dict(first=5), r'first must lie in 1\.\.4'),
        (dict(rates=(1, 1)), 'each of 4 blocks'),
        (dict(rates=(1, 0.5, 0.5, 0)), 'rates must lie in'),
        (dict(first=2, rates=(1, 0.9, 0.5, 0.5)), 'must be 1 up to block 2'),
        (dict(dynamic=1), 'dynamic must be'),
        (dict(prior_weight=-1), 'prior_weight must be'),
    ],
)
def test_refusals(wrong, message):
    with pytest.raises(ConfigError, match=message):
        ARCH.replace(**{KEY: wrong})
