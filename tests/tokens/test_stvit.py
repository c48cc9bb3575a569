"""STViT-R against its description: one window and one head at a time."""

import copy

import pytest
import torch
import torch.nn.functional as F
from token_methods import Given
from torch import nn
from torch.nn.utils import prune

from mmvitcompress.analysis.macs import count_macs
from mmvitcompress.arch.swin import SwinArch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.checkpoints.file import Checkpoint
from mmvitcompress.checkpoints.load import load_whole
from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.models import CompressedSwin
from mmvitcompress.models.swin import Swin
from mmvitcompress.planning import plan_arch
from mmvitcompress.tokens.methods.stvit import (
    SemanticTokens,
    around_windows,
    nearest_centres,
    pool_windows,
)

KEY = SemanticTokens.key
SHAPE = dict(embed_dim=4, depths=(1, 1, 5, 1), num_heads=(1, 1, 2, 2))
GRIDS = [(14, 14), (1, 1), (5, 9), (32, 20), (7, 8), (23, 1)]


def attention(attn, tokens, keys):
    """Tokens (n, D) attend to keys (m, D); head by head, from explicit
    weights."""
    width, heads = attn.qk_dim, []
    q, _, _ = attn.qkv(tokens).split(attn.split, 1)
    _, k, v = attn.qkv(keys).split(attn.split, 1)
    for head in range(attn.num_heads):
        part = slice(head * width, (head + 1) * width)
        logits = q[:, part] @ k[:, part].T * width**-0.5
        heads.append(logits.softmax(1) @ v[:, part])
    return attn.proj(torch.cat(heads, 1))


def step(block, gamma, tokens, keys):
    """A block with layer scales, whose tokens attend to given ones."""
    attended = attention(block.attn, block.norm1(tokens), block.norm1(keys))
    tokens = tokens + gamma[0] * attended
    return tokens + gamma[1] * block.mlp(block.norm2(tokens))


def reference(model, x):
    """One unit on a grid (14, 14, D): the authors' windows of 7, each seen
    with those of 10 around it, which are cut at steps of 4."""
    blocks = model.layers[2].blocks
    gammas = [getattr(model, KEY)[str(i)].gamma for i in range(5)]
    patches, clusters = x.flatten(0, 1), []
    for i in range(2):
        for j in range(2):
            window = x[7 * i : 7 * i + 7, 7 * j : 7 * j + 7].permute(2, 0, 1)
            centres = F.adaptive_max_pool2d(window, 3).flatten(1).T
            near = x[4 * i : 4 * i + 10, 4 * j : 4 * j + 10].flatten(0, 1)
            keys = torch.cat([centres, near])
            clusters.append(step(blocks[0], gammas[0], centres, keys))
    tokens = torch.cat(clusters)
    keys = torch.cat([tokens, patches])
    tokens = step(blocks[1], gammas[1], tokens, keys)
    local = [step(blocks[2], gammas[2], t, t) for t in tokens.split(9)]
    tokens = torch.cat(local)
    tokens = step(blocks[3], gammas[3], tokens, tokens)
    return step(blocks[4], gammas[4], patches, tokens)


@torch.no_grad()
def test_against_windows_one_by_one():
    torch.manual_seed(0)
    spec = SemanticTokens((1,))
    model = Swin(SwinArch(**SHAPE, reductions=(spec,)), stages=3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model, model.norm = model.double().eval(), None
    x = torch.randn(2, 14, 14, 16, dtype=torch.float64)
    model.layers[2].downsample = Given(x)
    found, state = model(torch.zeros(2, 3, 224, 224).double(), take=(2,))[0]
    assert state.grid == (14, 14) and not state.undo and not state.notes
    for ours, grid in zip(found, x):
        torch.testing.assert_close(ours, reference(model, grid))


class Doubled(nn.Linear):
    """Does more than its weight says, as adapters do."""

    def forward(self, x):
        return 2 * super().forward(x)


def prune_half(qkv):
    prune.l1_unstructured(qkv, 'weight', 0.5)


def scale_output(qkv):
    qkv.register_forward_hook(lambda _, args, out: 2 * out)


def become_another(qkv):
    qkv.__class__ = Doubled


@pytest.mark.parametrize('change', [prune_half, scale_output, become_another])
def test_projections_that_do_more_than_their_weights_are_called(change):
    torch.manual_seed(0)
    model = Swin(SwinArch(**SHAPE, **{KEY: (1,)}), stages=3).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    same, x = copy.deepcopy(model), torch.randn(2, 3, 160, 224).double()
    for block, own in zip(model.layers[2].blocks, same.layers[2].blocks):
        change(block.attn.qkv)
        with torch.no_grad():
            if change is prune_half:
                own.attn.qkv.weight.mul_(block.attn.qkv.weight_mask)
            else:
                own.attn.qkv.weight.mul_(2)
                own.attn.qkv.bias.mul_(2)
    expected = same(x, take=(2,))[0][0]
    for _ in range(2):  # what makes weights anew does so in every call
        found = model(x, take=(2,))[0][0]
        torch.testing.assert_close(found, expected)
        found.sum().backward()


def test_attention_is_a_call_in_every_block():
    model, seen = Swin(SwinArch(**SHAPE, **{KEY: (1,)})), []
    attentions = [b.attn for stage in model.layers for b in stage.blocks]
    for attn in attentions:
        attn.register_forward_hook(lambda own, *_: seen.append(own))
    model(torch.randn(1, 3, 64, 64))
    assert seen == attentions


@pytest.mark.parametrize('grid', GRIDS)
def test_windows_of_any_grid(grid):
    spec = SemanticTokens((1,))
    windows, samples = spec.clusters(grid)
    parts = [m * p for m, p in zip(windows, samples)]
    x = torch.eye(grid[0] * grid[1])[None].unflatten(1, grid)
    centres = pool_windows(x, windows, samples)
    assert centres.shape[1] == spec.count(grid) <= grid[0] * grid[1]
    # adaptive pooling of the whole grid, in the order of its windows
    pooled = F.adaptive_max_pool2d(x.permute(0, 3, 1, 2), parts)
    by_window = pooled[0].unflatten(2, (windows[1], -1))
    by_window = by_window.unflatten(1, (windows[0], -1)).transpose(2, 3)
    assert torch.equal(by_window.flatten(1).T, centres[0])
    # each patch is a part of the centre that is nearest to it
    places = nearest_centres(grid, windows, samples, 'cpu')[0]
    assert (centres[0][places].diagonal() == 1).all()
    # what a window's centres are made of is near
    near = around_windows(grid, windows, spec.near(grid), 'cpu')
    seen = torch.zeros(len(near), x.shape[-1]).scatter(1, near, 1.0)
    made = centres[0].unflatten(0, (len(near), -1)).amax(1)
    assert (seen >= made).all()
    assert (seen.sum(1) == min(10, grid[0]) * min(10, grid[1])).all()


def blocks_of_stage_three(arch):
    """MACs and parameters of its blocks, without the patch merging."""
    macs, params = (
        whole(stages=3, final_norm=False) - whole(stages=2, final_norm=False)
        for whole in (arch.macs, arch.params)
    )
    return macs - 196 * 768 * (384 + 5), params - 768 * (384 + 2)


def test_costs_of_the_authors():
    """Their log has 3.312 G and 31.958 M for the blocks of Swin-Small's
    stage 3, and 5.826 G for all. They project a patch in each window that it
    is a key of, norm keys that are tokens twice, and have a stem of two
    convolutions."""
    reductions = []
    for name, layers, dense in (
        ('swin_tiny', (2,), 4.5),
        ('swin_small', (2, 8, 14), 8.7),
    ):
        arch = get_arch(name).replace(**{KEY: layers})
        twice = 4 * 109 - 196 - 36
        extra = 2 * twice * 384**2 + 5 * 384 * (240 + 36 + 36)
        stem = 112**2 * 48 * (27 + 5) + 56**2 * 96 * (9 * 48 + 5)
        stem -= 56**2 * 96 * (48 + 5)
        theirs = arch.macs(num_classes=1000) + len(layers) * extra + stem
        reductions.append(f'{100 - theirs / dense / 1e7:.1f}')
    assert reductions == ['19.6', '33.0']
    assert f'{theirs / 1e9:.3f}' == '5.826'
    macs, params = blocks_of_stage_three(arch)
    assert f'{(macs + 3 * extra) / 1e9:.3f}' == '3.312'
    assert f'{params / 1e6:.3f}' == '31.958'


def test_counts():
    arch = get_arch('swin_tiny').replace(**{KEY: (2,)})
    counts = [c for stage, _, c in arch.walk() if stage == 2]
    assert [c.attention for c in counts] == [196, 36, 36, 36, 36, 196]
    assert [c.mlp for c in counts] == [196, 36, 36, 36, 36, 196]
    assert {c.grid for c in counts} == {(14, 14)}


def test_merges_may_come_before_and_after():
    arch = SwinArch(
        **SHAPE,
        token_merging=dict(layers=(1, 5), first='vertical'),
        **{KEY: dict(layers=(2,), length=3)},
    )
    model = Swin(arch).eval()
    x = torch.randn(1, 3, 160, 224)
    assert count_macs(model, x).total == arch.macs((160, 224))
    with torch.no_grad():
        tokens, state = model(x, take=(2,))[0]
    assert tokens.shape[1] == state.grid[0] * state.grid[1]
    assert state.full_grid == (10, 14) and state.grid == (5, 7)


def test_plans_are_the_papers():
    """Units of six blocks with the one in windows, one after the other."""
    for name, target, layers in (
        ('swin_tiny', 0.24, (2,)),
        ('swin_small', 0.37, (2, 8, 14)),
    ):
        found = plan_arch(get_arch(name), target, 224, method=KEY)
        assert found.spec == SemanticTokens(layers)
    found = plan_arch(get_arch('swin_tiny'), 0.1, 224, 0.9, method=KEY)
    assert found.config() == {} and found.reduction == 0.1
    shallow = SwinArch(**{**SHAPE, 'depths': (1, 1, 1, 1)})
    with pytest.raises(ConfigError, match='must lie in'):
        plan_arch(shallow, 0.2, 224, method=KEY)


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(layers=(2,)), r'layers must lie in 1\.\.1, so that'),
        (dict(layers=(0,), length=3), r'layers must lie in 1\.\.3'),
        (dict(layers=(1, 3), length=3), r'at least length \(3\) apart'),
        (dict(layers=(1,), length=1), 'length must be .* from 2'),
        (dict(layers=(1,), samples=8), 'samples must be .* to 7'),
        (dict(layers=(1,), overlap=-1), 'overlap must be .* from 0'),
    ],
)
def test_refusals(wrong, message):
    with pytest.raises(ConfigError, match=message):
        SwinArch(**SHAPE, **{KEY: wrong})


@pytest.mark.parametrize('layer', [2, 3, 4])
def test_merges_within_a_unit_are_refused(layer):
    with pytest.raises(ConfigError, match=f'before block {layer} of stage 3'):
        SwinArch(
            **SHAPE,
            token_merging=dict(layers=(layer,)),
            **{KEY: dict(layers=(2,), length=3)},
        )


def test_a_whole_dense_model_is_a_start():
    """Position biases have no use in blocks that attend otherwise."""
    torch.manual_seed(0)
    shape = dict(SHAPE, depths=(1, 1, 3, 1))
    units = {KEY: dict(layers=(2,), length=2)}
    model, said = nn.Module(), []
    model.backbone = CompressedSwin(shape)
    names = ['layers.2.blocks.1', 'layers.2.blocks.2']
    tables = {f'{name}.attn.relative_position_bias_table' for name in names}
    weights = model.state_dict()
    meta = dict(arch=model.backbone.arch.to_dict())
    model.backbone = CompressedSwin(shape, **units)
    load_whole(model, Checkpoint('dense.pth', {}, weights, meta), said.append)
    loaded = model.backbone.state_dict()
    dense = {key.removeprefix('backbone.') for key in weights}
    assert dense - loaded.keys() == tables
    assert loaded.keys() - dense == {f'{KEY}.{i}.gamma' for i in (1, 2)}
    for name in dense - tables:
        assert torch.equal(loaded[name], weights[f'backbone.{name}'])
    assert said == [f'dense.pth: {SemanticTokens.start}']
    # and not the other way round, where biases would be missing
    weights = model.state_dict()
    meta = dict(arch=model.backbone.arch.to_dict())
    model.backbone = CompressedSwin(shape)
    with pytest.raises(CheckpointError, match='relative_position_bias_table'):
        load_whole(
            model, Checkpoint('own.pth', {}, weights, meta), said.append
        )
