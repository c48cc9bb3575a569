"""Backbones whose life predictor trains, against explicit attention."""

import pytest
import torch
from small_vits import SMALL

from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.models import CompressedViT, LifeSlimDeiT
from mmvitcompress.tokens import PatchSlimming, TokenMap

SLIM = dict(base_layer=2, layers=(2, 3), keep_rate=0.7)
MERGES = dict(layers=(2,))


def small(soft=True, **kwargs):
    torch.manual_seed(0)
    kwargs = dict(patch_slimming=SLIM) | kwargs
    model = CompressedViT(SMALL, soft_slimming=soft, **kwargs)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def lives_of(state):
    return state.notes['patch_slimming']


def last(model, x):
    """Tokens and state of the last block."""
    model.restore = False
    with torch.no_grad():
        return model(x)[-1]


@pytest.mark.parametrize('layer', [1, 2])
def test_bias_is_a_factor_under_the_softmax(layer):
    """exp(h_ij)·β_j / Σ_k exp(h_ik)·β_k, unequal widths included."""
    attn = small().double().blocks[layer].attn
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    beta = torch.rand(2, 1, 1, 5, dtype=torch.float64)
    q, k, v = (
        part.unflatten(2, (3, -1)).transpose(1, 2)
        for part in attn.qkv(x).split(attn.split, 2)
    )
    weights = (q @ k.transpose(2, 3) * 8**-0.5).exp() * beta
    weights = weights / weights.sum(-1, keepdim=True)
    expected = attn.proj((weights @ v).transpose(1, 2).flatten(2))
    found = attn(x, beta.log())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    unweighted = attn(x, torch.zeros_like(beta))
    torch.testing.assert_close(unweighted, attn(x))


def test_sharp_weights_equal_dropping(monkeypatch):
    """A patch whose weight falls to 0 at once has left, for the others."""
    model = small(patch_slimming=SLIM | dict(sharpness=1e4)).double()
    budgets = PatchSlimming(**SLIM).budgets(64, 4)

    def exact_lives(scores, mean, std):
        """Ends half a layer after the last block that the rank reaches."""
        rank = scores.argsort(1, descending=True).argsort(1)
        return 0.5 + sum((rank < count).double() for count in budgets)

    monkeypatch.setattr(
        'mmvitcompress.tokens.methods.life.scores_to_lives', exact_lives
    )
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    soft, hard = last(model.train(), x), last(model.eval(), x)
    assert soft.tokens.shape[1] == 64 and hard.tokens.shape[1] == 32
    kept = hard.state.undo[-1].order[:, :32, None].expand(-1, -1, 24)
    torch.testing.assert_close(soft.tokens.gather(1, kept), hard.tokens)


def test_soft_run_without_weights_would_differ():
    model = small().train()
    x = torch.randn(2, 3, 32, 32)
    weighted = last(model, x)
    dense = last(small(False, patch_slimming=None), x)
    assert weighted.state.notes['patch_slimming'].shape == (2, 64)
    assert (weighted.tokens - dense.tokens).abs().max() > 1e-3


def test_lives_have_the_moments_of_the_merged_count():
    model = small(token_merging=MERGES).train()
    for size, patches in (((32, 32), 32), ((36, 44), 54)):
        lives = last(model, torch.randn(2, 3, *size)).state.notes[
            'patch_slimming'
        ]
        mean, std = PatchSlimming(**SLIM).life_moments(patches, 4)
        assert lives.shape == (2, patches)
        torch.testing.assert_close(lives.mean(1), torch.full((2,), mean))
        found = lives.std(1, correction=0)
        torch.testing.assert_close(found, torch.full((2,), std))


def test_gradient_flows_through_lives_to_blocks_before():
    model = small(restore=False).train()
    _, state = model(torch.randn(2, 3, 32, 32))[-1]
    (grad,) = torch.autograd.grad(
        state.notes['patch_slimming'].square().sum()
        + state.notes['patch_slimming'][:, 0].sum(),
        model.blocks[0].mlp.fc1.weight,
    )
    assert grad.abs().sum() > 0


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('with_cp', [False, True])
def test_autocast(dtype, with_cp):
    model = small(with_cp=with_cp).train()
    x = torch.randn(2, 3, 36, 44)
    exact = last(model, x).tokens
    with torch.autocast('cpu', dtype):
        tokens, state = model(x)[-1]
        loss = tokens.float().square().mean()
    loss.backward()
    assert lives_of(state).dtype == torch.float32
    close = (tokens.float() - exact).abs() < 0.1 * exact.abs().max()
    assert close.float().mean() > 0.99
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('autocast', [False, True])
def test_bias_is_of_the_type_of_the_queries(autocast, monkeypatch):
    """CUDA's kernels insist on it; those of the CPU take any."""
    attend, types = torch.nn.functional.scaled_dot_product_attention, []

    def spy(q, k, v, bias, **kwargs):
        types.append((q.dtype, None if bias is None else bias.dtype))
        return attend(q, k, v, bias, **kwargs)

    monkeypatch.setattr(
        'torch.nn.functional.scaled_dot_product_attention', spy
    )
    model, x = small().train(), torch.randn(2, 3, 32, 32)
    low = torch.bfloat16
    if not autocast:
        model, x = model.to(low), x.to(low)
    with torch.autocast('cpu', low, enabled=autocast):
        tokens, state = last(model, x)
    assert types == [(low, None)] * 2 + [(low, low)] * 2
    assert lives_of(state).dtype == torch.float32
    assert tokens.isfinite().all()


def test_forward_leaves_no_trace():
    model = small().train()
    before = {name: set(vars(part)) for name, part in model.named_modules()}
    first = last(model, torch.randn(2, 3, 32, 32))
    last(model, torch.randn(1, 3, 36, 44))
    assert isinstance(first, TokenMap)
    after = {name: set(vars(part)) for name, part in model.named_modules()}
    assert before == after
    assert not list(model.buffers())


# -- checkpoints ------------------------------------------------------------

WIDE = {k: v for k, v in SMALL.items() if not k.endswith('_dims')}


def save(model, path, **meta):
    """As a training run of a classifier does."""
    state = {f'backbone.{k}': v for k, v in model.state_dict().items()}
    state['head.fc.weight'] = torch.randn(5, 24)
    torch.save({'state_dict': state, 'meta': meta}, path)
    return str(path)


def test_a_training_checkpoint_becomes_a_slimming_backbone(tmp_path):
    torch.manual_seed(0)
    soft = CompressedViT(WIDE, patch_slimming=SLIM, soft_slimming=True)
    path = save(soft, tmp_path / 'epoch_2.pth')
    x = torch.randn(2, 3, 36, 44)
    hard = CompressedViT(WIDE, patch_slimming=SLIM, checkpoint=path)
    assert not hard.patch_slimming.predictor.query.weight.requires_grad
    for mine, theirs in zip(hard.eval()(x), soft.eval()(x)):
        assert torch.equal(mine, theirs)


def test_a_dense_checkpoint_may_start_a_soft_run(tmp_path):
    dense = CompressedViT(WIDE)
    path = save(dense, tmp_path / 'dense.pth')
    for model in (
        CompressedViT(
            WIDE, patch_slimming=SLIM, checkpoint=path, soft_slimming=True
        ),
        LifeSlimDeiT(
            {**WIDE, 'patch_slimming': SLIM},
            checkpoint=path,
            soft_slimming=True,
        ),
    ):
        loaded = model.state_dict()
        for key, value in dense.state_dict().items():
            assert torch.equal(loaded[key], value), key
        assert model.patch_slimming.predictor.key.weight.std() > 0.01
    with pytest.raises(CheckpointError, match='soft_slimming=True'):
        CompressedViT(WIDE, patch_slimming=SLIM, checkpoint=path)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({}, 'such as patch_slimming'),
        (dict(patch_slimming=SLIM, out_indices=[1]), 'only 2 blocks'),
        (
            dict(patch_slimming=dict(base_layer=4, layers=(4,))),
            'only 4 blocks',
        ),
    ],
)
def test_what_could_not_train_is_refused(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        CompressedViT(WIDE, soft_slimming=True, **kwargs)
