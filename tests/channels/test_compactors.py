"""Compactors: identity at the start, and the gradient rule by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.channels import (
    Kinds,
    apply_penalty_,
    attach_compactors,
    clear_moments_,
    column_norms,
    find_compactors,
    is_compactor,
    kept_channels,
    set_kept_,
    shrink_masked_,
)
from mmvitcompress.channels.compactors import CompactedLinear
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import ViT

ARCH = ViTArch(
    embed_dim=12,
    depth=2,
    num_heads=2,
    qk_dims=(4, 6),
    v_dims=(6, 3),
    mlp_dims=(20, 16),
    patch_size=4,
    img_size=16,
    token_merging=dict(layers=(2,)),
)


def make(dtype=torch.float64, arch=ARCH):
    torch.manual_seed(0)
    model = ViT(arch).to(dtype)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def images(dtype=torch.float64):
    return torch.randn(2, 3, 16, 16, generator=torch.manual_seed(1)).to(dtype)


def scramble(compactors):
    torch.manual_seed(2)
    for block in compactors:
        for compactor in block:
            nn.init.normal_(compactor.weight)


def features(model, x):
    return model(x)[0][0]


def token_side(x, layer):
    """(x·W + b)·C on the tokens, head by head, as the paper writes it."""
    parts = F.linear(x, layer.weight, layer.bias).split(layer.rows, dim=-1)
    out = []
    for part, compactor in zip(parts, layer.compactors.values()):
        groups, width = compactor.kept.shape
        heads = part.unflatten(-1, (groups, width))
        matrices = compactor.weight.transpose(1, 2)  # C
        out.append(torch.einsum('...gi,gij->...gj', heads, matrices))
    return torch.cat([part.flatten(-2) for part in out], -1)


def test_attaching_changes_neither_output_nor_names():
    model = make()
    plain = {name: value for name, value in model.state_dict().items()}
    before = features(model, images())
    compactors = attach_compactors(model)
    torch.testing.assert_close(
        features(model, images()), before, rtol=0, atol=1e-14
    )
    rest = {k: v for k, v in model.state_dict().items() if not is_compactor(k)}
    assert rest.keys() == plain.keys()
    assert all(rest[name] is not None for name in plain)
    assert all(torch.equal(rest[name], plain[name]) for name in plain)
    shapes = [[tuple(c.kept.shape) for c in block] for block in compactors]
    assert shapes == [
        [(2, 4), (2, 4), (2, 6), (1, 20)],
        [(2, 6), (2, 6), (2, 3), (1, 16)],
    ]


@pytest.mark.parametrize('bias', [True, False])
def test_layer_equals_compactors_on_the_tokens(bias):
    torch.manual_seed(0)
    plain = nn.Linear(5, 2 * 3 + 2 * 4, bias=bias).double()
    layer = CompactedLinear(plain, dict(q=(2, 3), v=(2, 4)))
    for compactor in layer.compactors.values():
        nn.init.normal_(compactor.weight)
    x = torch.randn(3, 7, 5, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(('x', x), *layer.named_parameters())
    weights = torch.randn(3, 7, 14, dtype=torch.float64)
    results = []
    for output in (layer(x), token_side(x, layer)):
        grads = torch.autograd.grad((output * weights).sum(), parameters)
        results.append((output, *grads))
    for name, ours, theirs in zip(('output', *names), *results):
        torch.testing.assert_close(ours, theirs, msg=lambda m, n=name: n + m)


def test_model_equals_compactors_on_the_tokens(monkeypatch):
    model = make()
    scramble(attach_compactors(model))
    ours = features(model, images())
    monkeypatch.setattr(
        CompactedLinear, 'forward', lambda self, x: token_side(x, self)
    )
    torch.testing.assert_close(ours, features(model, images()))


def test_gradient_of_single_columns_by_hand():
    """λ = 0.5 and a column (3, 4) of norm 5: the lasso adds (0.3, 0.4)."""
    model = make(arch=ARCH.replace(depth=1, qk_dims=2, v_dims=2, mlp_dims=2,
                                   token_merging=None))  # fmt: skip
    [block] = attach_compactors(model)
    compactor = block.v
    columns = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    compactor.weight.data[:] = columns  # rows are columns of C; both heads
    objective = torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    for each in block:
        each.weight.grad = objective.repeat(len(each.weight), 1, 1).double()
    compactor.kept[1] = False
    apply_penalty_([block], lam=0.5)
    expected = torch.tensor(
        [
            [[10.3, 20.4], [30.0, 40.0]],  # kept; the zero column feels none
            [[0.3, 0.4], [0.0, 0.0]],  # masked: the lasso alone
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(compactor.weight.grad, expected)
    # the identity's columns elsewhere have norm 1
    torch.testing.assert_close(
        block.mlp.weight.grad[0],
        torch.tensor([[10.5, 20.0], [30.0, 40.5]], dtype=torch.float64),
    )


def test_penalty_equals_the_formula_column_by_column():
    model = make()
    compactors = attach_compactors(model)
    scramble(compactors)
    features(model, images()).square().sum().backward()
    generator = torch.manual_seed(3)
    expected = []
    for block in compactors:
        for compactor in block:
            shape = compactor.kept.shape
            compactor.kept[:] = torch.rand(shape, generator=generator) < 0.6
            grad = compactor.weight.grad.clone()
            for group in range(shape[0]):
                for c in range(shape[1]):
                    column = compactor.weight.data[group, c]
                    mask = float(compactor.kept[group, c])
                    grad[group, c] = (
                        mask * grad[group, c]
                        + 0.01 * column / column.square().sum().sqrt()
                    )
            expected.append(grad)
    apply_penalty_(compactors, 0.01)
    found = [c.weight.grad for block in compactors for c in block]
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs)


def test_overflow_in_a_masked_column_does_not_stay():
    model = make()
    compactors = attach_compactors(model)
    compactor = compactors[0].q
    compactor.weight.grad = torch.full_like(compactor.weight, float('inf'))
    compactor.kept[0, 1] = False
    apply_penalty_(compactors, 0.1)
    masked = compactor.weight.grad[0, 1]
    assert masked.tolist() == pytest.approx([0, 0.1, 0, 0])
    assert compactor.weight.grad[0, 0].isinf().all()


def test_frozen_compactors_are_left_alone():
    model = make()
    compactors = attach_compactors(model)
    compactors[0].q.weight.requires_grad_(False)
    features(model, images()).sum().backward()
    apply_penalty_(compactors)
    assert compactors[0].q.weight.grad is None


def test_masked_channels_decay_and_recover():
    """A masked column vanishes; kept again, it learns what it lost."""
    model = make(torch.float32)
    compactors = attach_compactors(model)
    layer, hidden = model.blocks[0].mlp.fc1, compactors[0].mlp
    optimizer = torch.optim.Adam([hidden.weight], lr=0.02, betas=(0.9, 0.99))
    x = torch.randn(64, 12)
    target = layer(x).detach()

    def train(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            (layer(x) - target).square().mean().backward()
            apply_penalty_(compactors)
            optimizer.step()
        error = (layer(x) - target).square().mean(0).sqrt()
        return hidden.norms()[0], error / target.std(0)

    hidden.kept[0, 3] = False
    norms, error = train(150)
    assert norms[3] < 0.01 < 0.9 < norms[4:].min()
    assert error[3] > 0.9
    hidden.kept[0, 3] = True
    norms, error = train(150)
    assert norms[3] > 0.5
    assert error[3] < 0.1


def test_masked_columns_shrink_to_zero_and_kept_ones_stay():
    compactors = attach_compactors(make(torch.float64))
    hidden = compactors[0].mlp
    with torch.no_grad():
        hidden.weight[0, 2] = 0
        hidden.weight[0, 2, :2] = torch.tensor([0.6, 0.8])
        hidden.weight[0, 5] = 0
    hidden.kept[0, [2, 5]] = False
    before = hidden.weight.detach().clone()
    for step in range(1, 5):
        shrink_masked_(compactors, 0.3)
        length = max(0, 1 - 0.3 * step)  # and the direction stays
        expected = torch.tensor([0.6, 0.8], dtype=torch.double) * length
        torch.testing.assert_close(hidden.weight[0, 2, :2], expected)
    assert not hidden.weight[0, [2, 5]].any()
    others = [i for i in range(before.shape[1]) if i not in (2, 5)]
    assert torch.equal(hidden.weight[0, others], before[0, others])
    eye = torch.eye(compactors[1].q.kept.shape[1], dtype=torch.double)
    assert torch.equal(compactors[1].q.weight[0], eye)


def test_adam_forgets_the_newly_masked_only():
    model = make()
    compactors = attach_compactors(model)
    block = compactors[0]
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.99, 0.999))
    features(model, images()).square().sum().backward()
    optimizer.step()
    block.v.kept[0, 1] = False  # masked for long
    before = kept_channels(compactors)
    block.v.kept[0, 1] = True  # recovers
    block.v.kept[1, 2] = block.v.kept[1, 3] = False
    state = optimizer.state
    old = {p: dict(s) for p, s in state.items()}
    old = {p: {k: v.clone() for k, v in s.items()} for p, s in old.items()}
    clear_moments_(optimizer, compactors, before)
    for parameter, values in old.items():
        for name, value in values.items():
            if parameter is block.v.weight and name != 'step':
                assert value[1, 2:4].abs().min() > 0
                value[1, 2:4] = 0
            assert torch.equal(state[parameter][name], value)


def test_a_column_that_adam_forgot_about_vanishes_sooner():
    ends = []
    for clear in (False, True):
        torch.manual_seed(0)
        model = make(torch.float32)
        compactors = attach_compactors(model)
        hidden = compactors[0].mlp
        optimizer = torch.optim.Adam(
            [hidden.weight], lr=0.01, betas=(0.99, 0.999)
        )
        for step in range(250):
            if step == 50:
                before = kept_channels(compactors)
                hidden.kept[0, 3] = False
                if clear:
                    clear_moments_(optimizer, compactors, before)
            hidden.weight.grad = torch.randn_like(hidden.weight) * 1e-2
            apply_penalty_(compactors)
            optimizer.step()
        ends.append(hidden.norms()[0, 3].item())
    assert ends[1] < 0.2 < 0.7 < ends[0]


def test_norms_and_masks_pass_through_arrays():
    model = make()
    compactors = attach_compactors(model)
    scramble(compactors)
    norms = column_norms(compactors)
    matrix = compactors[1].k.weight[1].T  # C of head 1
    assert norms[1].k[1, 2] == pytest.approx(matrix[:, 2].norm().item())

    masks = [Kinds(*(part > 1 for part in block)) for block in norms]
    set_kept_(compactors, masks)
    for block, found in zip(masks, kept_channels(compactors)):
        for mask, other in zip(block, found):
            assert (mask == other).all()
    assert any(not mask.all() for block in masks for mask in block)


def test_masks_and_matrices_travel_in_the_state_dict():
    model = make()
    compactors = attach_compactors(model)
    scramble(compactors)
    compactors[1].v.kept[1, 2] = False
    twin = make()
    attach_compactors(twin)
    twin.load_state_dict(model.state_dict())
    assert not find_compactors(twin)[1].v.kept[1, 2]
    torch.testing.assert_close(
        features(twin, images()), features(model, images()), rtol=0, atol=0
    )


def test_copies_stand_on_their_own():
    model = make()
    attach_compactors(model)
    twin = copy.deepcopy(model)
    before = features(model, images())
    scramble(find_compactors(twin))
    assert torch.equal(features(model, images()), before)
    assert not torch.equal(features(twin, images()), before)


def test_names_tell_compactors_from_the_rest():
    model = make()
    attach_compactors(model)
    names = [name for name, _ in model.named_parameters()]
    found = [name for name in names if is_compactor(name)]
    assert len(found) == 2 * 4
    assert 'blocks.0.attn.qkv.compactors.q.weight' in found
    assert 'blocks.0.attn.qkv.weight' not in found


def test_gradients_reach_all_under_autocast():
    model = make(torch.float32)
    compactors = attach_compactors(model)
    with torch.autocast('cpu', torch.bfloat16):
        features(model, images(torch.float32)).float().sum().backward()
    apply_penalty_(compactors)
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.dtype == torch.float32, name


def test_a_step_never_reads_from_the_device():
    """Nothing can be read on the meta device, so nothing waits for CUDA."""
    model = make(torch.float32)
    compactors = attach_compactors(model)
    model.to('meta')
    features(model, images(torch.float32).to('meta')).sum().backward()
    apply_penalty_(compactors)
    shrink_masked_(compactors, 0.1)


def test_compiles_as_one_graph():
    model = make()
    attach_compactors(model)
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    torch.testing.assert_close(
        features(compiled, images()), features(model, images())
    )


def test_attaching_twice_or_to_nothing_is_refused():
    model = make()
    attach_compactors(model)
    with pytest.raises(ConfigError, match='already has compactors'):
        attach_compactors(model)
    with pytest.raises(ConfigError, match='Linear has no transformer blocks'):
        attach_compactors(nn.Linear(2, 2))
