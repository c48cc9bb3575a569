"""DiffRate: ranks and merges image by image, and rates that learn."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import METHODS, restore
from mmvitcompress.tokens.losses import collect_losses
from mmvitcompress.tokens.methods.diffrate import TokenRates
from mmvitcompress.tokens.ranked import LearnedRate

KEY = TokenRates.key
ARCH = ViTArch(24, 4, 3, patch_size=4, img_size=20)
SPEC = TokenRates((1, 0.8, 0.7, 0.5), (1, 0.6, 0.6, 0.2))
KEPT = {2: (20, 15), 3: (15, 15), 4: (13, 5)}  # of 25


def build(training=False, spec=SPEC, **changes):
    torch.manual_seed(0)
    arch = ARCH.replace(**{KEY: spec}, **changes)
    model = ViT(arch, training=training).double()
    for name, parameter in model.named_parameters():
        if 'rates' not in name:
            nn.init.normal_(parameter, std=0.3)
    return model.train(training)


def attention(attn, x, sizes):
    """The output, and what [CLS] attends to, from explicit weights."""
    q, k, v = (
        part.unflatten(2, (3, -1)).transpose(1, 2)
        for part in attn.qkv(x).split(attn.split, 2)
    )
    sizes = torch.cat([torch.ones(1), torch.tensor(sizes)]).double()
    weights = (q @ k.transpose(2, 3) * 8**-0.5).exp() * sizes
    weights = weights / weights.sum(-1, keepdim=True)
    out = attn.proj((weights @ v).transpose(1, 2).flatten(2))
    return out, weights[0, :, 0, 1:].mean(0)


def reference(model, image):
    """One image, on lists: tokens after each block, the full map at last."""
    x, _ = model.embed(image)
    patches = [*range(25)]  # of each place: the token that holds it
    sizes, gone = [1.0] * 25, {}
    for layer, block in enumerate(model.blocks, 1):
        y, row = attention(block.attn, block.norm1(x), sizes)
        x = x + y
        pruned, merged = KEPT.get(layer, (len(sizes), len(sizes)))
        if merged < len(sizes):
            tokens = [*x[0, 1:]]
            ranked = sorted(range(len(sizes)), key=lambda i: -row[i].item())
            stay = sorted(ranked[:merged])
            sums = {i: [tokens[i]] for i in stay}
            grown = {i: sizes[i] for i in stay}
            now = {i: stay.index(i) for i in stay}
            for i in ranked[merged:pruned]:
                like = [
                    F.cosine_similarity(tokens[i], tokens[j], 0) for j in stay
                ]
                best = max(range(merged), key=lambda j: like[j].item())
                sums[stay[best]].append(tokens[i])
                grown[stay[best]] += sizes[i] * max(like[best].item(), 0)
                now[i] = best
            for i in ranked[pruned:]:
                for place in [p for p in range(25) if patches[p] == i]:
                    gone[place] = tokens[i]
            patches = [now.get(i) for i in patches]
            means = [torch.stack(sums[i]).mean(0) for i in stay]
            x = torch.cat([x[:, :1], torch.stack(means)[None]], 1)
            sizes = [grown[i] for i in stay]
        x = x + block.mlp(block.norm2(x))
    places = [
        gone[p] if p in gone else x[0, 1 + patches[p]] for p in range(25)
    ]
    return x, torch.stack(places)


@torch.no_grad()
def test_against_lists():
    model = build()
    model.norm = None
    images = torch.randn(3, 3, 20, 20, dtype=torch.float64)
    found, state = model(images)[0]
    maps = restore(found[:, 1:], state).flatten(2).transpose(1, 2)
    for i in range(3):
        tokens, places = reference(model, images[i : i + 1])
        # sizes are single-precision
        torch.testing.assert_close(found[i], tokens[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(maps[i], places, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('rope', [None, {}])
def test_masks_do_what_dropping_does(rope):
    """What is left has the same values while the rates learn, and stands where
    it will; prefix tokens tell of all of it."""
    learner = build(training=True, rope=rope)
    images = torch.randn(2, 3, 20, 20, dtype=torch.float64)
    masked = learner(images)[0][0][:, 0]
    dropped = learner.eval()(images)[0][0][:, 0]
    error = (masked - dropped).abs().max()
    assert error < 1e-4 * dropped.abs().max()


@pytest.mark.parametrize('rate', [1 / 30, 0.3, 0.77, 0.99])
def test_a_rate_starts_where_it_is_given(rate):
    assert abs(LearnedRate(30, rate)().item() - rate) < 1e-3


def test_the_gradient_of_a_mask_is_that_of_its_probability():
    """Candidates 1/4 … 1: rank k stays with those of more than k."""
    rate = LearnedRate(4, 0.6)
    rank = torch.tensor([[2, 0, 3, 1]])
    mask = rate.mask(rank)
    assert mask.tolist() == [[1, 1, 0, 1]]  # ⌈0.6 · 4⌉ = 3
    weights = torch.tensor([[1.0, 2, 3, 4]])
    (mask * weights).sum().backward()
    logits = rate.logits.detach().clone().requires_grad_()
    chances = logits.softmax(0)
    stays = torch.stack([chances[k:].sum() for k in rank[0]])
    (stays * weights[0]).sum().backward()
    torch.testing.assert_close(rate.logits.grad, logits.grad)


def test_macs_while_learning_are_those_of_the_rates():
    """No weight but products of blocks: by the closed form of the arch."""
    learner = getattr(build(training=True), KEY)
    images = torch.randn(1, 3, 20, 20, dtype=torch.float64)
    model = build(training=True)
    with collect_losses() as found:
        model(images)
    method = getattr(model, KEY)
    saved = 1 - method.spec.target
    spec = learner.learned()
    n = [c.attention + 1 for c in ARCH.with_reductions(spec).counts()]
    m = [c.mlp + 1 for c in ARCH.with_reductions(spec).counts()]
    spent = sum(48 * 48 * a + 48 * a * a + 48 * 96 * b for a, b in zip(n, m))
    whole = 4 * (48 * 48 * 26 + 48 * 26 * 26 + 48 * 96 * 26)
    loss = method.spec.macs_weight * (spent / whole - saved) ** 2
    # the mean rate isn't rounded up to whole patches there
    assert abs(found['macs'].sqrt().item() - loss**0.5) < 0.2


def test_rates_learn_the_target():
    spec = TokenRates(keep_rate=0.95, target=0.4)
    model = build(training=True, spec=spec).requires_grad_(False)
    method = getattr(model, KEY).requires_grad_(True)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.1)
    images = torch.randn(4, 3, 20, 20, dtype=torch.float64)
    wanted = torch.randn(4, 24, dtype=torch.float64)
    for _ in range(100):
        with collect_losses() as found:
            tokens = model(images)[0][0]
        task = (tokens[:, 0] - wanted).square().mean()
        optimizer.zero_grad()
        (task + found['macs']).backward()
        optimizer.step()
    assert found['macs'] < 0.1  # a miss of 3 % at most
    learned = method.learned()
    assert learned.target == 0.4
    counts = ARCH.with_reductions(learned).counts()
    assert counts[-1].mlp < 25 * 0.6


def test_rates_of_what_is_not_built_stay_as_they_were():
    model = ViT(ARCH.replace(**{KEY: SPEC}), depth=3, training=True)
    assert getattr(model, KEY).learned().prune[3] == 15 / 25


def test_costs():
    """DeiT-Small at the −41.3 % of CAIT's table: even rates reach it."""
    arch = get_arch('deit_small')
    whole = arch.macs(num_classes=1000)

    def saved(spec):
        reduced = arch.with_reductions(spec)
        return 1 - reduced.macs(num_classes=1000) / whole

    found = METHODS[KEY].for_target(arch, 224, saved, 0.413)
    assert abs(saved(found) - 0.413) < 0.002
    assert arch.with_reductions(found).params() == arch.params()


def test_fractions_are_of_all_patches():
    counts = ARCH.with_reductions(SPEC).counts()
    assert [(c.attention, c.mlp) for c in counts] == [
        (25, 25),
        (25, 15),
        (15, 15),
        (15, 5),
    ]


@pytest.mark.parametrize(
    'wrong, message',
    [
        ({}, 'needs both prune and merge, or keep_rate'),
        (dict(prune=(0.5,) * 4), 'needs both prune and merge'),
        (dict(prune=(0.5,) * 4, merge=(0.5,) * 4, keep_rate=1), 'alone'),
        (dict(prune=(0.5,) * 3, merge=(0.5,) * 3), 'each of 4 blocks'),
        (dict(prune=(0.5,) * 4, merge=(0.5,) * 3), 'as many blocks'),
        (dict(prune=(0.5, 0, 1, 1), merge=(1,) * 4), r'prune must lie in \(0'),
        (dict(keep_rate=1.5), 'keep_rate must lie in'),
        (dict(keep_rate=0.5, target=1), r'target must lie in \(0, 1\)'),
        (dict(keep_rate=0.5, macs_weight=-1), 'macs_weight must be'),
    ],
)
def test_refusals(wrong, message):
    with pytest.raises(ConfigError, match=message):
        ARCH.replace(**{KEY: wrong})
