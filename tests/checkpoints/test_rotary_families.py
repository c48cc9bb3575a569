"""timm's ViTs with rotary positions and gated MLPs, read by names and tensors.

Features must be timm's, at the model's own size and at others.
"""

from functools import partial

import pytest
import timm
import torch
from swins import randomised
from timm.layers import LayerNorm
from timm.models.eva import Eva

import mmvitcompress
from mmvitcompress.arch.zoo import ARCHS
from mmvitcompress.checkpoints.convert import convert
from mmvitcompress.checkpoints.file import read_checkpoint, write_checkpoint
from mmvitcompress.checkpoints.names import partners_apart
from mmvitcompress.checkpoints.recognise import recognise
from mmvitcompress.checkpoints.timm import describe
from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.models import CompressedViT, ViT

SMALL = dict(embed_dim=128, depth=3, num_heads=2, num_classes=5)
MODELS = {
    'dinov3': ('vit_small_patch16_dinov3', 16),
    'dinov3_biases': ('vit_small_patch16_dinov3_qkvb', 16),
    'dinov3_plus': ('vit_small_plus_patch16_dinov3', 16),
    'lingbot': ('vit_small_patch16_lingbot', 16),
    'eva02_tiny': ('eva02_tiny_patch14_224', 14),
    'eva02_base': ('eva02_base_patch14_224', 14),
    'eva02_inner': ('eva02_large_patch14_224', 14),
    'sbb_rope': ('vit_medium_patch16_rope_reg1_gap_256', 16),
    'axial': ('vit_small_patch16_rope_224', 16),
    'axial_placed': ('vit_small_patch16_rope_ape_224', 16),
    'dinov2_giant': ('vit_giant_patch14_dinov2', 14),
    'eva': ('eva_giant_patch14_224', 14),
}


def make(name, patches=(4, 4), **changes):
    """A small model in float64, all of whose parameters matter."""
    model, patch = MODELS[name]
    size = tuple(patch * side for side in patches)
    if name == 'eva02_inner':
        changes['scale_attn_inner'] = True
    options = {**SMALL, 'img_size': size, **changes}
    torch.manual_seed(0)
    return randomised(timm.create_model(model, **options)).double().eval()


def image(name, patches=(4, 4), batch=2, short=0):
    patch = MODELS[name][1]
    generator = torch.Generator().manual_seed(1)
    size = [patch * side - short for side in patches]
    x = torch.randn(batch, 3, *size, generator=generator)
    return x.double()


def error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def ours(source):
    model = ViT(source.arch).double().eval()
    names = {'fc_norm.weight': 'norm.weight', 'fc_norm.bias': 'norm.bias'}
    own = model.state_dict()
    tensors = {names.get(k, k): v for k, v in source.state_dict.items()}
    model.load_state_dict({k: v for k, v in tensors.items() if k in own})
    return model


@torch.no_grad()
@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('patches', [(4, 4), (8, 8), (3, 7)])
def test_features_are_timms(name, patches):
    theirs = make(name)
    model = ours(describe(theirs))
    if patches != (4, 4):
        # positions as timm sets them for another size
        theirs.set_input_size(tuple(MODELS[name][1] * s for s in patches))
    x = image(name, patches)
    expected = theirs.forward_intermediates(
        x, return_prefix_tokens=True, intermediates_only=True
    )
    found = [tokens for tokens, _ in model.intermediates(x, range(3))]
    for tokens, maps in zip(found, expected, strict=True):
        prefix = tokens[:, :0]
        if isinstance(maps, tuple):
            maps, prefix = maps
        count = model.num_prefix_tokens
        assert error(tokens[:, count:], maps.flatten(2).mT) <= 1e-9
        if count:
            assert error(tokens[:, :count], prefix) <= 1e-9


@torch.no_grad()
def test_padded_images_are_as_timm_pads_them():
    theirs = make('dinov3', dynamic_img_pad=True)
    x = image('dinov3', (3, 5), short=3)
    maps = theirs.forward_intermediates(x, intermediates_only=True)[-1]
    tokens, _ = ours(describe(theirs))(x)[0]
    patches = tokens[:, 5:]
    normed = theirs.norm(maps.flatten(2).mT)
    assert error(patches, normed) <= 1e-9


@torch.no_grad()
def test_normalised_queries_are_turned_as_timm_does():
    theirs = make('axial', attn_type='rope', qk_norm=True)
    x = image('axial', (3, 5))
    theirs.set_input_size(tuple(x.shape[2:]))
    tokens, _ = ours(describe(theirs))(x)[0]
    assert error(tokens, theirs.forward_features(x)) <= 1e-9


# what of a file is told by its names: not how EVA and axial ViTs that have
# positions as well differ from each other in what no tensor shows
@torch.no_grad()
@pytest.mark.parametrize('name', MODELS)
def test_files_are_read_by_their_names(name, tmp_path):
    theirs = make(name, num_classes=0)
    path = tmp_path / 'theirs.pth'
    torch.save(theirs.state_dict(), path)
    # a DeiT-III's tensors have the same names
    arch = describe(theirs).arch if name == 'axial_placed' else None
    model = CompressedViT(
        arch,
        checkpoint=str(path),
        img_size=theirs.patch_embed.img_size,
        out_indices=[0, 2],
        final_norm=False,
    )
    expected = theirs.forward_intermediates(
        image(name), [0, 2], intermediates_only=True
    )
    for found, maps in zip(model.double().eval()(image(name)), expected):
        # in single precision on the way
        assert error(found, maps) <= 1e-5


def test_learned_frequencies_are_refused(tmp_path):
    with torch.device('meta'):
        model = timm.create_model('vit_small_patch16_rope_mixed_224')
    with pytest.raises(ConfigError, match='RotaryEmbeddingMixed'):
        mmvitcompress.compress(model)
    model = Eva(**SMALL, rope_type='mixed', use_rot_pos_emb=True)
    torch.save(model.state_dict(), tmp_path / 'mixed.pth')
    with pytest.raises(CheckpointError, match='learned the frequencies'):
        convert(str(tmp_path / 'mixed.pth'))


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        (dict(use_post_norm=True), 'EvaBlockPostNorm'),
        (dict(init_values=1.0, attn_only_layer_scale=True), 'attention only'),
        (dict(rope_type='mrope'), 'RotaryEmbeddingMRope'),
        (
            dict(attn_type='rope', qkv_fused=False, num_kv_heads=1),
            'num_kv_heads',
        ),
        (dict(norm_layer=partial(LayerNorm, bias=False)), 'without bias'),
    ],
)
def test_what_is_refused_is_named(options, reason):
    model = Eva(**SMALL, use_rot_pos_emb=True, **options)
    with pytest.raises(ConfigError, match=reason):
        describe(model)


@pytest.mark.parametrize(
    ('name', 'peer'),
    {
        'dinov3_small': 'vit_small_patch16_dinov3',
        'dinov3_splus': 'vit_small_plus_patch16_dinov3',
        'dinov3_base': 'vit_base_patch16_dinov3',
        'dinov3_large': 'vit_large_patch16_dinov3',
        'dinov3_hplus': 'vit_huge_plus_patch16_dinov3',
        'eva02_tiny': 'eva02_tiny_patch14_224',
        'eva02_small': 'eva02_small_patch14_224',
        'eva02_base': 'eva02_base_patch14_224',
        'eva02_large': 'eva02_large_patch14_224',
        'dinov2_giant': 'vit_giant_patch14_dinov2',
        'dinov2_reg4_giant': 'vit_giant_patch14_reg4_dinov2',
        'dinov2_large': 'vit_large_patch14_dinov2',
    }.items(),
)
def test_named_archs_are_timms(name, peer):
    with torch.device('meta'):
        model = timm.create_model(peer, num_classes=0)
    arch = describe(model).arch
    assert ARCHS[name].replace(img_size=arch.img_size) == arch
    params = sum(p.numel() for p in model.parameters())
    # biases of keys, which are zero, and a norm where timm's has another
    norms = 'norm.weight' in model.state_dict()
    missing = arch.num_heads * arch.head_dim * arch.depth
    missing *= hasattr(model.blocks[0].attn, 'q_bias') and arch.qkv_bias
    extra = 0 if norms else 2 * arch.embed_dim
    assert arch.params(final_norm=norms) == params + missing - extra


@torch.no_grad()
@pytest.mark.parametrize('name', ['dinov3_plus', 'eva02_base', 'eva02_tiny'])
def test_compress_starts_from_them(name, tmp_path):
    theirs = make(name).float()
    x = image(name).float()
    dense = mmvitcompress.compress(theirs)
    assert error(dense(x), theirs(x)) <= 1e-5
    model = mmvitcompress.compress(
        theirs, [2], dict(target=0.4, min_head_dim=8)
    )
    assert model.macs() <= 0.6 * dense.macs()
    widths = model.arch.qk_dims
    assert all(width % 8 == 0 for width in widths) and min(widths) < 64
    mmvitcompress.save(model, tmp_path / 'ours.safetensors')
    again = mmvitcompress.load(tmp_path / 'ours.safetensors')
    assert again.arch == model.arch
    assert torch.equal(again(x), model(x))
    # which frequencies the pairs that stayed have is no matter of taste
    tensors = dict(read_checkpoint(tmp_path / 'ours.safetensors').state_dict)
    del tensors['blocks.0.attn.rope_index']
    write_checkpoint(tmp_path / 'less.pth', tensors, model.arch)
    with pytest.raises(CheckpointError, match='rope_index'):
        mmvitcompress.load(tmp_path / 'less.pth')


@pytest.mark.parametrize('name', ['dinov3_plus', 'eva02_base', 'eva02_inner'])
@pytest.mark.parametrize('criterion', ['taylor', 'lfs', 'random'])
def test_images_choose_pairs(name, criterion, capsys):
    theirs = make(name).float()
    x = torch.cat([image(name), image(name).flip(3)]).float()
    channels = dict(target=0.12, steps=2, criterion=criterion, min_head_dim=8)
    model = mmvitcompress.compress(theirs, channels=channels, calibration=x)
    assert 0 < model.feature_error['feature_error'] < 1.5
    arch, whole = model.arch, describe(theirs).arch
    assert arch.macs() <= 0.88 * whole.macs()
    assert all(width % 8 == 0 for width in arch.qk_dims)
    for kind in whole.kept_whole:
        assert getattr(arch, kind) == getattr(whole, kind)


@torch.no_grad()
def test_widths_are_kept_by_pairs():
    theirs = make('dinov3').float()
    model = mmvitcompress.compress(theirs, channels=dict(qk_dims=34))
    assert model.arch.qk_dims == (34,) * 3
    half = mmvitcompress.compress(theirs, channels=dict(qk=0.5, divisor=1))
    assert half.arch.qk_dims == (32,) * 3
    with pytest.raises(ConfigError, match='qk_dims must be even'):
        mmvitcompress.compress(theirs, channels=dict(qk_dims=33))
    with pytest.raises(ConfigError, match="'mlp' cannot be removed"):
        mmvitcompress.compress(make('eva02_base'), channels=dict(mlp=0.5))


def test_partners_are_put_apart_by_hand():
    # two heads of two pairs each: names of pairs and of partners
    rows = ['a0', 'a1', 'b0', 'b1', 'c0', 'c1', 'd0', 'd1']
    qkv = torch.arange(24.0)[:, None]
    found = partners_apart({'blocks.0.attn.qkv.weight': qkv}, 2)
    order = found['blocks.0.attn.qkv.weight'].flatten().long().tolist()
    named = [rows[i % 8] for i in order]
    assert named[:8] == ['a0', 'b0', 'a1', 'b1', 'c0', 'd0', 'c1', 'd1']
    assert named[8:16] == named[:8] and named[16:] == rows
    assert [i // 8 for i in order] == [0] * 8 + [1] * 8 + [2] * 8


def test_an_arch_in_the_config_says_what_names_do_not(tmp_path):
    theirs = make('axial', num_classes=0)
    path = tmp_path / 'theirs.pth'
    torch.save(theirs.state_dict(), path)
    told = recognise(read_checkpoint(path)).with_arch().arch
    assert told.rope == describe(theirs).arch.rope
    other = told.replace(rope=dict(coords='index', temperature=7.0))
    read = recognise(read_checkpoint(path)).with_arch(other).arch
    assert read.rope.temperature == 7


def test_positions_that_no_tensor_tells_are_asked_for(tmp_path):
    """Perception Encoders turn Q and K, which none of their tensors shows."""
    theirs = timm.create_model(
        'vit_pe_core_tiny_patch16_384', depth=2, img_size=32
    )
    path = tmp_path / 'theirs.pth'
    torch.save(theirs.state_dict(), path)
    with pytest.raises(CheckpointError, match=r'Perception.*arch with rope'):
        recognise(read_checkpoint(path)).with_arch()
    source = describe(theirs)
    read = recognise(read_checkpoint(path)).with_arch(source.arch)
    assert read.arch.rope == source.arch.rope
    for key, value in source.state_dict.items():
        torch.testing.assert_close(read.tensors[key], value, msg=key)


def test_positions_that_may_be_there_are_named(tmp_path):
    """Original DeiT-III files have the names of RoPE-ViTs with positions."""
    theirs = timm.create_model('vit_small_patch16_rope_ape_224', depth=2)
    path = tmp_path / 'theirs.pth'
    torch.save(theirs.state_dict(), path)
    read = recognise(read_checkpoint(path)).with_arch()
    assert read.arch.rope is None and 'rope=None' in read.notes[-1]
