"""ViTArch: closed-form costs against the papers, JSON, validation."""

import json

import numpy as np
import pytest

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import ARCHS, get_arch
from mmvitcompress.errors import ConfigError


def macs(name, img_size=224, num_classes=1000, **changes):
    arch = get_arch(name).replace(**changes)
    return arch.macs(img_size, num_classes)


@pytest.mark.parametrize(
    'name, expected',
    [
        ('deit_tiny', 1_258_411_200),
        ('deit_small', 4_608_338_304),
        ('deit_base', 17_582_740_224),
    ],
)
def test_dense_macs_are_fvcores(name, expected):
    assert macs(name) == expected


def test_dense_macs_formula():
    """768·N·D + L(12nD² + 2n²D + 10nD) + 5nD + 1000·D, at 320×256."""
    dim, depth, patches = 384, 12, 20 * 16
    n = patches + 1
    expected = (
        768 * patches * dim
        + depth * (12 * n * dim**2 + 2 * n**2 * dim + 10 * n * dim)
        + 5 * n * dim
        + 1000 * dim
    )
    assert macs('deit_small', (320, 256)) == expected


@pytest.mark.parametrize(
    'name, layers, reduction, params',
    [
        ('deit_small', (5, 9), 0.411, 22.64),
        ('deit_small', (5, 8), 0.431, 22.64),
        ('deit_small', (4, 6, 9), 0.546, 22.94),
        ('deit_tiny', (4, 8, 10), 0.502, 5.94),
    ],
)
def test_merging_matches_cait_tables(name, layers, reduction, params):
    merged = dict(token_merging=dict(layers=layers))
    assert 1 - macs(name, **merged) / macs(name) == pytest.approx(
        reduction, abs=5e-4
    )
    found = get_arch(name).replace(**merged).params(1000) / 1e6
    assert found == pytest.approx(params, abs=5e-3)


def test_merging_without_class_token_matches_the_printed_figure():
    """The paper prints 43.3 %, which is H@5+V@8 without [CLS]."""
    plain = dict(class_token=False)
    merged = dict(token_merging=dict(layers=(5, 8)), **plain)
    ratio = macs('deit_small', **merged) / macs('deit_small', **plain)
    assert 1 - ratio == pytest.approx(0.433, abs=5e-4)


def test_merging_at_512_px():
    dense = macs('deit_small', 512, 0)
    merged = macs('deit_small', 512, 0, token_merging=dict(layers=(5, 8)))
    assert (dense, merged) == (31_798_255_488, 16_894_877_568)


def test_first_direction_makes_no_difference():
    costs = {
        macs('deit_small', token_merging=dict(layers=(5, 8), first=first))
        for first in ('horizontal', 'vertical')
    }
    assert len(costs) == 1


@pytest.mark.parametrize(
    'name, keep_rate, gigamacs',
    [
        ('deit_small', 0.9, 4.1),
        ('deit_small', 0.8, 3.6),
        ('deit_small', 0.7, 3.2),
        ('deit_base', 0.7, 12.3),
        ('vit_tiny', 0.7, 0.9),
    ],
)
def test_slimming_matches_life_regression_table(name, keep_rate, gigamacs):
    slim = dict(patch_slimming=dict(keep_rate=keep_rate))
    assert round(macs(name, **slim) / 1e9, 1) == gigamacs


def test_named_cait_shape_has_the_papers_size():
    """CAIT Table II: 2.1 G MACs, 18.4 M parameters."""
    arch = get_arch('cait_deit_small')
    assert round(arch.macs(224, 1000) / 1e9, 1) == 2.1
    assert round(arch.params(1000) / 1e6, 1) == 18.4


def test_lvvit_small_has_its_published_size():
    """26.15 M parameters with the auxiliary token head, 6.6 G MACs."""
    arch = get_arch('lvvit_small')
    auxiliary = 1000 * (arch.embed_dim + 1)
    params = arch.params(1000) + auxiliary
    assert params / 1e6 == pytest.approx(26.15, abs=5e-3)
    assert arch.macs(224, 1000) / 1e9 == pytest.approx(6.5, abs=0.1)


def test_macs_of_matrix_products_alone():
    arch = get_arch('deit_tiny')
    n, dim = 197, 192
    norms = 12 * 10 * n * dim + 5 * n * dim
    assert arch.macs() - arch.macs(convention='matmul') == norms


def test_tokens_per_block():
    arch = get_arch('deit_tiny').replace(
        depth=6,
        token_merging=dict(layers=(2, 3)),
        patch_slimming=dict(base_layer=3, layers=(3, 5), keep_rate=0.5),
    )
    # 7×9 grid: H → 7×5, V → 4×5, then ⌈20/2⌉ and ⌈10/2⌉
    counts = [c.attention for c in arch.counts((100, 140))]
    assert counts == [63, 35, 20, 10, 10, 5]


VITS = sorted(name for name in ARCHS if isinstance(ARCHS[name], ViTArch))


@pytest.mark.parametrize('name', VITS)
def test_json_round_trip(name, tmp_path):
    method = dict(patch_slimming=dict(base_layer=8, layers=(8,)))
    if not getattr(ARCHS[name], 'class_token', True):
        method = dict(token_merging=dict(layers=(8,)))
    arch = ARCHS[name].replace(**method)
    path = tmp_path / 'arch.json'
    arch.save(path)
    assert get_arch(str(path)) == arch
    assert get_arch(json.loads(path.read_text())) == arch


def test_dict_with_base():
    arch = get_arch(dict(base='deit_small', mlp_dims=1024))
    assert arch == get_arch('deit_small').replace(mlp_dims=1024)


@pytest.mark.parametrize(
    'base, changes',
    [
        ('deit_tiny', dict(embed_dim=96)),
        ('deit_small', dict(num_heads=12)),
        ('deit_small', dict(depth=6)),
        ('deit_small', dict(embed_dim=512, num_heads=8, depth=20)),
        ('deit_small', dict(head_dim=32)),
    ],
)
def test_what_was_derived_follows(base, changes):
    """As if the shape were written from nothing."""
    plain = dict(
        deit_tiny=dict(embed_dim=192, depth=12, num_heads=3),
        deit_small=dict(embed_dim=384, depth=12, num_heads=6),
    )
    expected = ViTArch(**{**plain[base], **changes})
    assert get_arch(dict(base=base, **changes)) == expected
    assert get_arch(base).replace(**changes) == expected
    # and back, through JSON
    back = {name: plain[base].get(name) for name in changes}
    content = expected.to_dict()
    assert get_arch(dict(base=content, **back)) == get_arch(base)


def test_heads_are_free_of_parameters():
    """DeiT-Small has 22.05 M with any number of heads."""
    arch = get_arch(dict(base='deit_small', num_heads=12))
    assert round(arch.params(1000) / 1e6, 2) == 22.05


def test_what_was_given_stays():
    pruned = get_arch('deit_tiny').replace(
        qk_dims=range(8, 20), v_dims=48, window_size=7, global_blocks=(0,)
    )
    wider = pruned.replace(embed_dim=384)
    assert wider.qk_dims == tuple(range(8, 20)) and wider.mlp_dims[0] == 1536
    assert wider.v_dims == (48,) * 12 and wider.head_dim == 128
    with pytest.raises(ConfigError, match='each of 6 blocks, but got 12'):
        pruned.replace(depth=6)
    shallow = pruned.replace(qk_dims=8, depth=6)
    assert shallow.v_dims == (48,) * 6 and shallow.global_blocks == (0,)
    windows = get_arch(dict(base='deit_tiny', window_size=7))
    assert windows.global_blocks == (2, 5, 8, 11)
    assert windows.replace(depth=8).global_blocks == (1, 3, 5, 7)
    assert windows.replace(window_size=None) == get_arch('deit_tiny')


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(token_merging=dict(layers=(0, 5))), '1..12 .* but got 0'),
        (dict(token_merging=dict(layers=(5, 13))), '1..12 .* but got 13'),
        (dict(token_merging=dict(layers=(5, 5))), 'repeat'),
        (dict(token_merging=dict(layers=(8, 5))), 'ascend'),
        (dict(token_merging=dict(layers=('5',))), 'whole numbers'),
        (dict(token_merging=dict(layer=(5,))), "no key 'layer'; known"),
        (dict(token_merging=dict(layers=(5,), first='up')), "got 'up'"),
        (
            dict(token_merging=dict(layers=(5,), directions='left')),
            "got 'left'",
        ),
        (
            dict(token_merging=dict(layers=(5, 8), directions=['vertical'])),
            'each of 2 layers, but got 1',
        ),
        (dict(token_merging=5), 'must be a dict'),
        (dict(patch_slimming=dict(layers=(4, 13))), 'but got 13'),
        (dict(patch_slimming=dict(keep_rate=1.5)), 'got 1.5'),
        (dict(patch_slimming=dict(keep_rate=0)), 'got 0'),
        (dict(patch_slimming=dict(base_layer=5)), 'before base_layer'),
        (
            dict(patch_slimming={}, token_merging=dict(layers=(5,))),
            'merge earlier, or let patch_slimming start later',
        ),
        (dict(patch_slimming={}, class_token=False), 'class_token=True'),
        (dict(qk_dims=(64,) * 11), 'but got 11 widths'),
        (dict(mlp_dims=0), 'mlp_dims .* but got 0'),
        (dict(stem='resnet'), "got 'resnet'"),
        (dict(img_size=8), 'at least one patch'),
        (dict(img_size=(1, 2, 3)), 'one or two whole numbers'),
        (dict(depth=0), 'depth .* but got 0'),
        (dict(embed_dim=385, head_dim=None), 'multiple of num_heads'),
        (dict(in_chans=0), 'in_chans .* got 0'),
        (dict(in_chans='3'), "in_chans .* got '3'"),
        (dict(skip_scale=0), 'skip_scale .* positive number, but got 0'),
        (dict(skip_scale=-2.0), 'skip_scale .* got -2.0'),
        (dict(skip_scale=True), 'skip_scale .* got True'),
        (dict(norm_eps='x'), "norm_eps .* got 'x'"),
        (dict(norm_eps=float('nan')), 'norm_eps .* got nan'),
        (dict(norm_eps=float('inf')), 'norm_eps .* got inf'),
        (dict(norm_eps=None), 'norm_eps .* got None'),
        (dict(reg_tokens=-1), 'reg_tokens .* from 0 to .* but got -1'),
        (dict(reg_tokens=1.5), 'reg_tokens .* got 1.5'),
        (dict(class_token='no'), "class_token .* got 'no'"),
        (dict(dist_token=1), 'dist_token must be True or False, but got 1'),
        (dict(layer_scale=1e-5), 'layer_scale .* got 1e-05'),
        (dict(qkv_bias=None), 'qkv_bias .* got None'),
        (dict(head_dim=0, qk_dims=8, v_dims=8), 'head_dim .* got 0'),
        (dict(mlp_dims=2.5), 'mlp_dims .* got 2.5'),
        (dict(mlp_dims='wide'), "mlp_dims .* got 'wide'"),
        (dict(img_size=224.5), 'img_size .* got 224.5'),
        (dict(img_size=(224, True)), r'img_size .* got \(224, True\)'),
        (
            dict(token_merging=dict(layers=(5,), conv='no')),
            "token_merging.conv .* got 'no'",
        ),
        (
            dict(token_merging=dict(layers=2.5)),
            'token_merging.layers .* got 2.5',
        ),
        (
            dict(token_merging=dict(layers=None)),
            'token_merging.layers .* got None',
        ),
        (
            dict(token_merging=dict(layers=(5,), directions=3)),
            'token_merging.directions .* got 3',
        ),
        (
            dict(token_merging=dict(layers=(5,), directions=[['vertical']])),
            r"token_merging.directions .* got \['vertical'\]",
        ),
        (
            dict(patch_slimming=dict(keep_rate='0.7')),
            "patch_slimming.keep_rate .* got '0.7'",
        ),
        (
            dict(patch_slimming=dict(keep_rate=True)),
            'patch_slimming.keep_rate .* got True',
        ),
        (
            dict(patch_slimming=dict(base_layer='4')),
            "patch_slimming.base_layer .* got '4'",
        ),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        get_arch('deit_small').replace(**changes)


@pytest.mark.parametrize(
    'content, message',
    [
        ('deit_smal', "did you mean 'deit_small'"),
        (dict(embed_dims=384), "no key 'embed_dims'"),
        (dict(embed_dim=384), "needs the key 'depth'"),
        ('missing.json', 'not found'),
    ],
)
def test_bad_archs_are_named(content, message):
    with pytest.raises(ConfigError, match=message):
        get_arch(content)


def test_damaged_json_is_named(tmp_path):
    path = tmp_path / 'arch.json'
    path.write_text('{"embed_dim": ')
    with pytest.raises(ConfigError, match='is not JSON'):
        get_arch(str(path))


def test_image_smaller_than_a_patch():
    with pytest.raises(ConfigError, match=r'16×16 px.* but got 8×40'):
        get_arch('deit_small').grid((8, 40))


def test_numbers_of_numpy_and_single_sizes():
    plain = ViTArch(96, 4, 3, mlp_dims=(8, 8, 16, 16), img_size=(64, 64))
    found = ViTArch(
        np.int64(96),
        np.int32(4),
        3,
        mlp_dims=np.array([8, 8, 16, 16]),
        norm_eps=np.float64(1e-6),
        img_size=(np.int64(64),),
    )
    assert found == plain
    assert json.dumps(found.to_dict()) == json.dumps(plain.to_dict())
    assert get_arch('deit_tiny').replace(img_size=np.int64(64)).pos_grid == (
        4,
        4,
    )
    assert plain.macs(np.int64(64)) == plain.macs((64,)) == plain.macs()
