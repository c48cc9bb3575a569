"""DynamicViT against its formulas, written out for one image at a time."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu, layer_norm

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import TokenState
from mmvitcompress.tokens.losses import collect_losses
from mmvitcompress.tokens.methods.dynamicvit import (
    Alive,
    KeepPredictor,
    TokenSparsification,
)

KEY = TokenSparsification.key
ARCH = ViTArch(24, 4, 3, patch_size=4, img_size=20)
SPEC = TokenSparsification((2, 4), 0.6)


def build(training=True, spec=SPEC):
    torch.manual_seed(0)
    model = ViT(ARCH.replace(**{KEY: spec}), training=training).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.train(training)


def scores(predictor, patches, alive):
    """Keep and drop logits, patch by patch; 0 or 1 for each patch."""
    norm, (first, _, second, _, third) = predictor.norm, predictor.score
    hidden = [
        gelu(predictor.embed(layer_norm(p, p.shape, norm.weight, norm.bias)))
        for p in patches
    ]
    half = len(hidden[0]) // 2
    seen = [h[-half:] for h, a in zip(hidden, alive) if a]
    pooled = torch.stack(seen).mean(0)
    return [
        third(gelu(second(gelu(first(torch.cat([h[:-half], pooled]))))))
        for h in hidden
    ]


@pytest.mark.parametrize('dim', [24, 25])
def test_scores_see_the_patch_and_the_mean_of_what_is_left(dim):
    torch.manual_seed(1)
    predictor = KeepPredictor(dim, 1e-5).double()
    for parameter in predictor.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 7, dim, dtype=torch.float64)
    alive = torch.tensor([[1, 0, 1, 1, 0, 0, 1.0], [0, 1, 1, 0, 0, 0, 0]])
    found = predictor(x, alive.double())
    whole = predictor(x)
    for i in range(2):
        expected = torch.stack(scores(predictor, x[i], alive[i]))
        torch.testing.assert_close(found[i], expected)
        expected = torch.stack(scores(predictor, x[i], torch.ones(7)))
        torch.testing.assert_close(whole[i], expected)


def attention(attn, x, alive):
    """exp(h_ij)·G_ij / Σ_k exp(h_ik)·G_ik: a token always sees itself."""
    q, k, v = (
        part.unflatten(2, (3, -1)).transpose(1, 2)
        for part in attn.qkv(x).split(attn.split, 2)
    )
    seen = alive[:, None, None].expand(-1, 3, alive.shape[1], -1)
    seen = seen.masked_fill(torch.eye(alive.shape[1], dtype=torch.bool), 1)
    weights = (q @ k.transpose(2, 3) * 8**-0.5).exp() * seen
    weights = weights / weights.sum(-1, keepdim=True)
    return attn.proj((weights @ v).transpose(1, 2).flatten(2))


def test_what_is_left_attends_as_the_formula_says():
    model = build()
    mask = (torch.rand(2, 25) < 0.5).double()
    state = TokenState.start((5, 5)).noting(KEY, Alive(mask, ()))
    bias = getattr(model, KEY).bias(3, state)
    x = torch.randn(2, 26, 24, dtype=torch.float64)
    alive = torch.cat([torch.ones(2, 1), mask], 1)
    found = model.blocks[2].attn(x, bias)
    expected = attention(model.blocks[2].attn, x, alive)
    left = alive.bool()
    error = (found - expected)[left].abs().max()
    assert error < 1e-4 * expected.abs().max()


def test_what_leaves_stays_away():
    model = build()
    images = torch.randn(3, 3, 20, 20, dtype=torch.float64)
    (_, state), (_, last) = model(images, (1, 3))
    first, second = state.notes[KEY], last.notes[KEY]
    assert first.mask.unique().tolist() == [0, 1]
    assert (second.mask <= first.mask).all()
    assert (second.mask < first.mask).any()
    assert torch.equal(second.shares[0], first.mask.mean(1))
    assert torch.equal(second.shares[1], second.mask.mean(1))


def test_the_ratio_loss_by_hand():
    """Targets of 0.6 and 0.36; each image counts by itself."""
    shares = torch.tensor([0.5, 0.9]), torch.tensor([0.36, 0.46])
    state = TokenState.start((5, 5)).noting(KEY, Alive(None, shares))
    squares = 0.1**2, 0.3**2, 0, 0.1**2
    method = getattr(build(), KEY)
    assert method.losses(TokenState.start((5, 5))) == {}
    for weight in (2, 0.5):
        method.spec = TokenSparsification((2, 4), 0.6, ratio_weight=weight)
        found = method.losses(state)
        expected = torch.tensor(weight * sum(squares) / 4)
        torch.testing.assert_close(found, {'keep_ratio': expected})


def test_the_ratio_loss_teaches_the_keep_rate():
    """By gradients through what is drawn, which itself has none."""
    spec = TokenSparsification((2, 4), 0.6, ratio_weight=20)
    model = ViT(ARCH.replace(**{KEY: spec}), training=True).train()
    torch.manual_seed(3)
    images = torch.randn(16, 3, 20, 20)
    predictors = getattr(model, KEY).parameters()
    optimizer = torch.optim.Adam(predictors, lr=3e-3)
    for _ in range(60):
        with collect_losses() as found:
            model(images)
        optimizer.zero_grad()
        found['keep_ratio'].backward()
        optimizer.step()
    shares = model(images)[0][1].notes[KEY].shares
    for stage, share in enumerate(shares, 1):
        assert math.isclose(share.mean().item(), 0.6**stage, abs_tol=0.06)


def test_a_task_teaches_the_scores():
    """The loss of a task alone reaches every predictor."""
    model = build()
    images = torch.randn(2, 3, 20, 20, dtype=torch.float64)
    model(images)[0][0][:, 0].square().sum().backward()
    for parameter in getattr(model, KEY).parameters():
        assert parameter.grad.abs().sum() > 0


@torch.no_grad()
def test_inference_keeps_the_best():
    model = build(training=False)
    images = torch.randn(2, 3, 20, 20, dtype=torch.float64)
    found = model(images)[0][0]
    for i in range(2):
        x, _ = model.embed(images[i : i + 1])
        for layer, block in enumerate(model.blocks, 1):
            if layer in SPEC.layers:
                patches = x[0, 1:]
                each = scores(
                    getattr(model, KEY)[str(layer - 1)],
                    patches,
                    torch.ones(len(patches)),
                )
                wanted = [s.softmax(0)[0].item() for s in each]
                ranked = sorted(range(len(each)), key=lambda j: -wanted[j])
                stay = sorted(ranked[: math.ceil(0.6 * len(each))])
                x = torch.cat([x[:, :1], x[:, 1:][:, stay]], 1)
            x = block(x)
        torch.testing.assert_close(found[i], model.norm(x)[0])


def test_costs_of_the_paper():
    """DeiT-Small, ρ = 0.7: 3.0 G with predictors, 22.8 M."""
    arch = get_arch('deit_small').replace(**{KEY: {}})
    assert round(arch.macs(num_classes=1000) / 1e9, 1) == 3.0
    assert round(arch.params(1000) / 1e6, 1) == 22.8
    assert [c.attention for c in arch.counts()[2::3]] == [196, 138, 97, 68]


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(keep_rate=0), r'keep_rate must lie in \(0, 1\]'),
        (dict(ratio_weight=-1), 'ratio_weight must be'),
        (dict(layers=(5,)), r'layers must lie in 1\.\.4'),
    ],
)
def test_refusals(wrong, message):
    with pytest.raises(ConfigError, match=message):
        ARCH.replace(**{KEY: wrong})
