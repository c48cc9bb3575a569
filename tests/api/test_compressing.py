"""Compressed models against timm's, cut by hand."""

import pytest
import timm
import torch
import torch.nn.functional as F
from timm_vits import difference, images, make, slimmed

import mmvitcompress
from mmvitcompress.channels import (
    MacBudget,
    SelectionRules,
    attach_compactors,
    column_norms,
    select,
    set_kept_,
    shrink_masked_,
)
from mmvitcompress.errors import CheckpointError, ConfigError


@torch.no_grad()
@pytest.mark.parametrize('family', ['deit', 'deit3', 'dinov2_reg4'])
def test_new_merges_are_means(family):
    theirs = make(family)
    ours = mmvitcompress.compress(theirs, dict(layers=(2, 3)))
    x = images(theirs)
    # the same with timm's blocks and pooling between them
    prefix = theirs.num_prefix_tokens
    tokens = theirs._pos_embed(theirs.patch_embed(x))
    maps = []
    for index, block in enumerate(theirs.blocks):
        if index:
            head, grid = tokens[:, :prefix], tokens[:, prefix:]
            height, width = (4, 4) if index == 1 else (4, 2)
            grid = grid.transpose(1, 2).unflatten(2, (height, width))
            grid = F.avg_pool2d(grid, (1, 2) if index == 1 else (2, 1))
            tokens = torch.cat([head, grid.flatten(2).transpose(1, 2)], 1)
        tokens = block(tokens)
        grid = tokens[:, prefix:].transpose(1, 2)
        grid = grid.unflatten(2, [(4, 4), (4, 2), (2, 2)][index])
        maps.append(F.interpolate(grid, (4, 4)))
    tokens = theirs.norm(tokens)
    assert difference(ours(x), theirs.forward_head(tokens)) <= 1e-5
    last, restored = ours.forward_intermediates(x)
    assert difference(last, tokens) <= 1e-5
    assert difference(torch.stack(restored), torch.stack(maps)) <= 1e-5


@torch.no_grad()
def test_the_smallest_channels_go():
    theirs = make('deit3').double()
    ours = mmvitcompress.compress(
        theirs, channels=dict(qk_dims=[32, 20, 7], v_dims=24, mlp_dims=100)
    )
    assert ours.arch.qk_dims == (32, 20, 7)
    assert ours.arch.mlp_dims == (100,) * 3
    # the same by zeros in timm's model
    for block, qk in zip(theirs.blocks, (32, 20, 7)):
        qkv, proj = block.attn.qkv, block.attn.proj
        for head in range(2):
            q = torch.arange(32) + 32 * head
            k, v = q + 64, q + 128
            score = qkv.weight[q].norm(dim=1) * qkv.weight[k].norm(dim=1)
            gone = score.argsort()[: 32 - qk]
            for rows in (q[gone], k[gone]):
                qkv.weight[rows], qkv.bias[rows] = 0, 0
            score = qkv.weight[v].norm(dim=1) * proj.weight[:, q].norm(dim=0)
            proj.weight[:, q[score.argsort()[:8]]] = 0
        fc1, fc2 = block.mlp.fc1, block.mlp.fc2
        score = fc1.weight.norm(dim=1) * fc2.weight.norm(dim=0)
        fc2.weight[:, score.argsort()[:156]] = 0
    x = images(theirs)
    assert difference(ours(x), theirs(x)) <= 1e-10


def test_channels_for_a_target():
    theirs = make()
    dense = mmvitcompress.compress(theirs).macs()
    rules = dict(target=0.4, min_mlp_dim=16)
    ours = mmvitcompress.compress(theirs, [3], rules)
    assert 0.4 <= 1 - ours.macs() / dense < 0.45
    arch = ours.arch
    assert all(width % 8 == 0 for width in arch.qk_dims + arch.mlp_dims)
    half = mmvitcompress.compress(theirs, channels=dict(v=0.5, mlp=0.25))
    assert half.arch.v_dims == (16,) * 3 and half.arch.mlp_dims == (64,) * 3
    assert half.arch.qk_dims == (32,) * 3
    again = mmvitcompress.compress(half, [2], dict(mlp=0.5))
    assert again.arch.v_dims == (16,) * 3 and again.arch.mlp_dims == (32,) * 3
    assert again.arch.token_merging.layers == (2,)


@torch.no_grad()
def test_what_a_loop_of_ones_own_pruned_is_folded(tmp_path):
    ours = mmvitcompress.compress(make().double())
    compactors = attach_compactors(ours.backbone)
    budget = MacBudget.of(ours.arch)
    for block in compactors:
        for part in block:
            part.weight.add_(torch.randn_like(part.weight) * 0.1)
    rules = SelectionRules(divisor=8)
    chosen = select(column_norms(compactors), budget, 0.3, rules)
    set_kept_(compactors, chosen.kept)
    with pytest.raises(ConfigError, match='have not become zero'):
        mmvitcompress.compress(ours)
    with pytest.raises(CheckpointError, match='fold them'):
        mmvitcompress.save(ours, tmp_path / 'x.pth')
    shrink_masked_(compactors, 10.0)
    folded = mmvitcompress.compress(ours)
    assert folded.macs() <= 0.705 * ours.macs()
    x = torch.randn(2, 3, 64, 64).double()
    assert difference(folded(x), ours(x)) <= 1e-10
    mmvitcompress.save(folded, tmp_path / 'x.pth')


def test_a_plan_is_what_compress_takes():
    theirs = make(img_size=128)
    found = mmvitcompress.plan(theirs, 0.5, channels=0.5)
    assert found.layers and found.channel_reduction
    ours = mmvitcompress.compress(theirs, **found.arguments())
    assert ours.arch.token_merging.layers == found.layers
    assert found.macs * 0.93 < ours.macs() <= found.macs
    tokens = mmvitcompress.plan('deit_small_patch16_224', 0.4)
    assert tokens == mmvitcompress.plan(
        timm.create_model('deit_small_patch16_224', device='meta'), 0.4
    )
    assert tokens.arguments()['channels'] is None
    assert mmvitcompress.plan('deit_small', 0.4, 512).dense_macs > 3e10


def test_slimmed_patches_leave_in_evaluation_only():
    ours = slimmed('dinov2_reg4')
    x = torch.randn(2, 3, 56, 56)
    assert ours.forward_features(x).shape == (2, 5 + 4, 64)
    maps = ours.forward_intermediates(x, norm=True, intermediates_only=True)
    assert [each.shape for each in maps] == [(2, 64, 4, 4)] * 3
    # 4 of 16 patches change in the last block
    changed = (maps[2] - maps[1]).abs().amax(1).flatten(1) > 0
    assert changed.sum(1).tolist() == [4, 4]
    ours.train()
    assert ours.forward_features(x).shape == (2, 5 + 16, 64)
    ours(x).square().sum().backward()
    predictor = ours.backbone.patch_slimming.parameters()
    assert all(p.grad.abs().sum() > 0 for p in predictor)
