"""SwinArch: costs against the papers and timm, selection, planning, JSON."""

import json

import numpy as np
import pytest
import timm
import torch

from mmvitcompress.arch.base import dense
from mmvitcompress.arch.swin import SwinArch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.channels.budget import MacBudget
from mmvitcompress.channels.compactors import Kinds
from mmvitcompress.channels.folding import pruned_arch
from mmvitcompress.channels.selection import select
from mmvitcompress.errors import ConfigError
from mmvitcompress.planning import plan_arch

PAPER_MERGES = {'swin_tiny': (5, 6), 'swin_small': (7, 13)}
SMALL = dict(embed_dim=12, depths=(1, 2, 3, 1), num_heads=(1, 2, 4, 8))


def merged(name, layers=None):
    layers = layers or PAPER_MERGES[name]
    return get_arch(name).replace(token_merging=dict(layers=layers))


@pytest.mark.parametrize(
    'name, macs, params',
    [('swin_tiny', 4.51, 28.29), ('swin_small', 8.77, 49.61)],
)
def test_dense_size(name, macs, params):
    arch = get_arch(name)
    assert round(arch.macs(224, 1000) / 1e9, 2) == macs
    assert round(arch.params(1000) / 1e6, 2) == params
    with torch.device('meta'):
        peer = timm.create_model(f'{name}_patch4_window7_224')
    theirs = sum(parameter.numel() for parameter in peer.parameters())
    assert arch.params(1000) == theirs


@pytest.mark.parametrize(
    'name, reduction, params',
    # CAIT prints 20.1 % and 33.7 %; the latter fits windows that are padded
    # to 7×7 in stage 4, where here, as in timm, they shrink to the 4×4 grid
    [('swin_tiny', 0.203, 28.9), ('swin_small', 0.357, 50.2)],
)
def test_merging_has_the_papers_size(name, reduction, params):
    arch = merged(name)
    saved = 1 - arch.macs(224, 1000) / dense(arch).macs(224, 1000)
    assert saved == pytest.approx(reduction, abs=5e-4)
    assert round(arch.params(1000) / 1e6, 1) == params


def test_padding_to_whole_windows_would_save_less():
    """Swin-T's stage 4 on a 4×4 grid, by hand: 16 tokens instead of 49."""
    arch = merged('swin_tiny')
    dim, mlp, blocks = 768, 3072, 2
    linear = 16 * (4 * dim**2 + 2 * dim * mlp)
    attention = 2 * 16 * 16 * dim
    norms = 16 * 5 * dim * (2 * blocks + 1) + 16 * 5 * 4 * 384
    reduction = 16 * 4 * 384 * dim
    stage = blocks * (linear + attention) + norms + reduction
    found = arch.macs(224) - arch.macs(224, stages=3, final_norm=False)
    assert found == stage


def test_costs_of_channels_by_hand():
    """The first block of stage 2 at 64 px."""
    arch = SwinArch(**SMALL, window_size=7)
    costs = MacBudget.of(arch, 64).costs[1]
    # stage 2: 8×8 grid, padded to 14×14
    assert costs.qk == costs.v == 14 * 14 * 2 * (2 * 24 + 49)
    assert costs.mlp == 64 * 2 * 24


def test_norms_are_what_the_conventions_differ_by():
    arch = SwinArch(**SMALL, img_size=64)
    stages = zip((256, 64, 16, 4), arch.depths, arch.dims)
    elements = 256 * 12  # of the stem's norm
    for index, (tokens, depth, dim) in enumerate(stages):
        elements += 2 * depth * tokens * dim
        elements += tokens * 2 * dim * bool(index)  # 4 tokens of half width
    elements += 4 * 96
    assert arch.macs() - arch.macs(convention='matmul') == 5 * elements


def random_scores(arch, seed):
    rng = np.random.default_rng(seed)
    widths = zip(arch.stages, arch.qk_dims, arch.v_dims, arch.mlp_dims)
    scores = []
    for stage, *dims in widths:
        heads = arch.num_heads[stage]
        qk, v = ((heads, dim) for dim in dims[:2])
        sizes = (qk, qk, v, (1, dims[2]))
        scores.append(Kinds(*(rng.random(size) for size in sizes)))
    return scores


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize(
    'arch, target',
    # CAIT's CDCP alone, and with ATME
    [
        (get_arch('swin_tiny'), 0.267),
        (merged('swin_tiny'), 0.354),
        (get_arch('swin_small'), 0.3),
        (merged('swin_small'), 0.45),
    ],
)
def test_selection_reaches_targets(arch, target, seed):
    budget = MacBudget.of(arch, 224, 1000)
    chosen = select(random_scores(arch, seed), budget, target)
    pruned = pruned_arch(arch, chosen.kept)
    whole = dense(arch).macs(224, 1000)
    found = 1 - pruned.macs(224, 1000) / whole
    assert found == pytest.approx(chosen.reduction, abs=1e-9)
    assert target <= found <= target + 3e-3
    assert pruned.token_merging == arch.token_merging


@pytest.mark.parametrize('name, target', [('tiny', 0.3), ('small', 0.33)])
def test_plans_merge_within_stage_three(name, target):
    arch = get_arch(f'swin_{name}')
    found = plan_arch(arch, target, 224, num_classes=1000)
    assert max(found.layers) <= arch.depths[2]
    again = merged(f'swin_{name}', found.layers).macs(224, 1000)
    assert again == found.macs
    assert target <= found.reduction <= target + 0.03


def test_plan_with_channels():
    found = plan_arch(get_arch('swin_tiny'), 0.354, (512, 384), channels=0.4)
    assert found.spec.directions[0] == 'vertical'
    assert found.token_reduction + found.channel_reduction == pytest.approx(
        0.354
    )


def test_tokens_per_block_of_odd_grids():
    arch = SwinArch(
        **SMALL, token_merging=dict(layers=(2, 3), first='vertical')
    )
    # 100×140 px: 25×35, 13×18, 7×9 → V: 4×9 → H: 4×5, then 2×3
    counts = [25 * 35, 13 * 18, 13 * 18, 7 * 9, 4 * 9, 4 * 5, 2 * 3]
    assert [c.attention for c in arch.counts((100, 140))] == counts
    assert arch.stage_grids((100, 140)) == [(25, 35), (13, 18), (7, 9), (4, 5)]


def test_windows_shrink_and_shift():
    arch = SwinArch(**SMALL)
    assert arch.windows((14, 8), True) == ((14, 8), (7, 7), (3, 3))
    assert arch.windows((14, 8), True).padded() == (14, 14)
    assert arch.windows((7, 9), True) == ((7, 9), (7, 7), (0, 3))
    assert arch.windows((4, 9), False) == ((4, 9), (4, 7), (0, 0))


@pytest.mark.parametrize('name', ['swin_tiny', 'swin_base'])
def test_json_round_trip(name, tmp_path):
    arch = merged(name, (5, 6)).replace(v_dims=24, pad_first=True)
    path = tmp_path / 'arch.json'
    arch.save(path)
    assert get_arch(str(path)) == arch
    assert get_arch(json.loads(path.read_text())) == arch


def test_what_was_derived_follows():
    base = dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24))
    for changes in (
        dict(depths=(2, 2, 18, 2)),
        dict(embed_dim=128, num_heads=(4, 8, 16, 32)),
        dict(num_heads=(6, 12, 24, 48)),
    ):
        found = get_arch(dict(base='swin_tiny', **changes))
        assert found == SwinArch(**{**base, **changes})
    pruned = merged('swin_tiny').replace(v_dims=24, embed_dim=192)
    assert pruned.v_dims == (24,) * 12 and pruned.qk_dims == (64,) * 12


def test_families_are_told_apart():
    assert get_arch(dict(base='swin_s', mlp_dims=64)).mlp_dims == (64,) * 24
    small = get_arch(dict(family='swin', **SMALL))
    assert small == SwinArch(**SMALL)
    with pytest.raises(ConfigError, match='be vit, as that of its base'):
        get_arch(dict(base='deit_tiny', family='swin'))
    with pytest.raises(ConfigError, match='family must be one of vit, swin'):
        get_arch(dict(family='cnn'))
    with pytest.raises(
        ConfigError, match="be swin, as that of its base, but got 'vit'"
    ):
        get_arch(dict(base='swin_s', family='vit'))


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(token_merging=dict(layers=(4,))), r'1\.\.3 \(blocks of stage 3'),
        (dict(token_merging=dict(layers=(0,))), r'1\.\.3 \(blocks of stage 3'),
        (dict(num_heads=(1, 2)), 'one number for each stage'),
        (dict(num_heads=(5, 2, 4, 8)), 'got 12 channels for 5 heads'),
        (dict(qk_dims=(1, 2)), 'one for each of 7 blocks'),
        (dict(mlp_dims=0), 'from 1 to'),
        (dict(img_size=3), 'at least one patch'),
        (dict(depths=(1, 0, 1, 1)), 'depths must be'),
        (dict(depths=12), 'one number for each stage, but got 12'),
        (dict(num_heads='1248'), "each stage, but got '1248'"),
        (dict(norm_eps='x'), "norm_eps .* got 'x'"),
        (dict(norm_eps=-1e-5), 'norm_eps .* got -1e-05'),
        (dict(qkv_bias=1), 'qkv_bias .* got 1'),
        (dict(pad_first='no'), "pad_first .* got 'no'"),
    ],
)
def test_errors_name_the_value(changes, message):
    with pytest.raises(ConfigError, match=message):
        SwinArch(**{**SMALL, **changes})


def test_merging_needs_a_third_stage():
    with pytest.raises(ConfigError, match='the arch has 2 stages'):
        SwinArch(12, (1, 1), (1, 2), token_merging=dict(layers=(1,)))
