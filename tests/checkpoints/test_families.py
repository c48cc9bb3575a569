"""Everybody's files: made by their own library, or by its names, and read.

Features must be those of the model that the file was made from.
"""

import json
import re
from functools import partial
from importlib import import_module

import pytest
import torch
from swins import assert_close, randomised, timm_swin
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.convert import convert
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.errors import CheckpointError
from mmvitcompress.models import (
    CompressedSwin,
    CompressedViT,
    ImageClassifier,
)


def theirs(name, library='mmseg', **options):
    # ours first: it provides what mmcv's operators lack here
    torch.manual_seed(0)
    model = getattr(import_module(f'{library}.models'), name)(**options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.eval()
    return model


SHAPE = dict(img_size=32, patch_size=8, embed_dim=128, depth=2, num_heads=2)


def vit(cls=VisionTransformer, **kwargs):
    torch.manual_seed(0)
    return randomised(cls(**{**SHAPE, 'num_classes': 5, **kwargs}))


def renamed(state_dict, *pairs):
    out = {}
    for key, value in state_dict.items():
        for pattern, name in pairs:
            key = re.sub(pattern, name, key)
        out[key] = value
    return out


def split_qkv(state_dict, names):
    """One projection as three, of names that 'qkv' is replaced by."""
    out = {}
    for key, value in state_dict.items():
        if 'qkv' in key:
            for name, part in zip(names, value.chunk(3)):
                out[key.replace('attn.qkv', name)] = part
        else:
            out[key] = value
    return out


def as_transformers(state_dict, prefix, dinov2=False):
    names = ['query', 'key', 'value']
    out = split_qkv(
        state_dict, [f'attention.attention.{name}' for name in names]
    )
    pairs = [
        (r'^cls_token$', 'embeddings.cls_token'),
        (r'^dist_token$', 'embeddings.distillation_token'),
        (r'^pos_embed$', 'embeddings.position_embeddings'),
        (r'^patch_embed\.proj', 'embeddings.patch_embeddings.projection'),
        (r'^blocks\.', 'encoder.layer.'),
        (r'attn\.proj', 'attention.output.dense'),
        (r'\.ls([12])\.gamma', r'.layer_scale\1.lambda1'),
        (r'^norm\.', 'layernorm.'),
    ]
    if not dinov2:
        pairs += [
            (r'\.norm1', '.layernorm_before'),
            (r'\.norm2', '.layernorm_after'),
            (r'mlp\.fc1', 'intermediate.dense'),
            (r'mlp\.fc2', 'output.dense'),
        ]
    heads = [(r'^head\.', 'classifier.')]
    if 'dist_token' in state_dict:
        heads = [
            (r'^head\.', 'cls_classifier.'),
            (r'^head_dist\.', 'distillation_classifier.'),
        ]
    inner = {k: v for k, v in out.items() if not k.startswith('head')}
    inner = {prefix + k: v for k, v in renamed(inner, *pairs).items()}
    outer = {k: v for k, v in out.items() if k.startswith('head')}
    inner[f'{prefix}embeddings.mask_token'] = torch.zeros(1, 1, 128)
    inner[f'{prefix}pooler.dense.weight'] = torch.zeros(128, 128)
    return {**inner, **renamed(outer, *heads)}


def as_mmpretrain(state_dict):
    pairs = [
        (r'^patch_embed\.proj', 'patch_embed.projection'),
        (r'^blocks\.', 'layers.'),
        (r'\.norm([12])', r'.ln\1'),
        (r'^norm\.', 'ln1.'),
        (r'mlp\.fc1', 'ffn.layers.0.0'),
        (r'mlp\.fc2', 'ffn.layers.1'),
        (r'\.ls1\.gamma', '.attn.gamma1.weight'),
        (r'\.ls2\.gamma', '.ffn.gamma2.weight'),
        (r'^(?!head)', 'backbone.'),
        (r'^head\.', 'head.layers.head.'),
        (r'^head_dist\.', 'head.layers.head_dist.'),
    ]
    return {'state_dict': renamed(state_dict, *pairs), 'meta': {'epoch': 3}}


def with_prefix(state_dict, prefix):
    return {prefix + key: value for key, value in state_dict.items()}


def as_clip(state_dict, openai=False):
    pairs = [
        (r'^patch_embed\.proj', 'conv1'),
        (r'^cls_token$', 'class_embedding'),
        (r'^pos_embed$', 'positional_embedding'),
        (r'^norm_pre', 'ln_pre'),
        (r'^norm\.', 'ln_post.'),
        (r'^blocks', 'transformer.resblocks'),
        (r'\.norm([12])\.', r'.ln_\1.'),
        (r'\.attn\.qkv\.', '.attn.in_proj_'),
        (r'\.attn\.proj\.', '.attn.out_proj.'),
        (r'\.mlp\.fc1\.', '.mlp.c_fc.'),
        (r'\.mlp\.fc2\.', '.mlp.c_proj.'),
    ]
    inner = {k: v for k, v in state_dict.items() if not k.startswith('head')}
    inner = renamed(inner, *pairs)
    for key in ('class_embedding', 'positional_embedding'):
        inner[key] = inner[key][0]
    inner['class_embedding'] = inner['class_embedding'][0]
    inner['proj'] = torch.zeros(128, 64)
    inner = with_prefix(inner, 'visual.')
    inner['token_embedding.weight'] = torch.zeros(9, 64)
    inner['transformer.resblocks.0.ln_1.weight'] = torch.zeros(64)
    if openai:
        inner['input_resolution'] = torch.tensor(32)
    return inner


def as_dinov3(state_dict):
    """Meta's names, of what DINOv3 shares with DINOv2."""
    out = renamed(state_dict, (r'^reg_token$', 'storage_tokens'))
    for key in [key for key in out if key.endswith('qkv.bias')]:
        dim = len(out[key]) // 3
        mask = torch.ones(3 * dim)
        mask[dim : 2 * dim] = 0
        out[key + '_mask'] = mask
        # what is masked is of no consequence
        out[key] = torch.where(mask == 1, out[key], torch.nan)
    out['mask_token'] = torch.zeros(1, 128)
    return out


def as_dino(state_dict):
    inner = {k: v for k, v in state_dict.items() if not k.startswith('head')}
    inner['masked_embed'] = torch.zeros(1, 128)  # iBOT's
    head = {'head.mlp.0.weight': torch.zeros(9, 128), 'head.last.weight_v': 0}
    head['head.last.weight_v'] = torch.zeros(7, 9)
    teacher = {**with_prefix(inner, 'backbone.'), **head}
    student = {f'module.{k}': v + 1 for k, v in teacher.items()}
    loss = {'center': torch.zeros(1, 7)}
    return {'student': student, 'teacher': teacher, 'dino_loss': loss}


def as_mae(state_dict):
    return {
        'model': {
            **{k: v for k, v in state_dict.items() if 'head' not in k},
            'mask_token': torch.zeros(1, 1, 64),
            'decoder_pos_embed': torch.zeros(1, 17, 64),
            'decoder_embed.weight': torch.zeros(64, 128),
            'decoder_blocks.0.norm1.weight': torch.zeros(64),
            'decoder_pred.bias': torch.zeros(192),
        }
    }


def as_moco(state_dict):
    base = {k: v for k, v in state_dict.items() if 'head' not in k}
    base['head.0.weight'] = torch.zeros(9, 128)
    return {
        'state_dict': {
            **with_prefix(base, 'module.base_encoder.'),
            **with_prefix(
                {k: v + 1 for k, v in base.items()}, 'module.momentum_encoder.'
            ),
            'module.predictor.0.weight': torch.zeros(9, 9),
        }
    }


SCALED = dict(init_values=0.5)
CLIP = dict(
    pre_norm=True,
    norm_layer=partial(torch.nn.LayerNorm, eps=1e-5),
)
FAMILIES = {
    'timm': (lambda s: s, {}),
    'deit': (lambda s: {'model': s, 'epoch': 3}, {}),
    'ema': (lambda s: {'model_ema': with_prefix(s, 'module.')}, {}),
    'compiled': (lambda s: with_prefix(s, '_orig_mod.'), {}),
    'dino': (as_dino, {}),
    'dinov2': (
        lambda s: {
            'teacher': renamed(
                with_prefix(s, 'backbone.'),
                (r'blocks\.(\d)', r'blocks.0.\1'),
            )
        },
        SCALED,
    ),
    'mae': (as_mae, {}),
    'moco': (as_moco, {}),
    'transformers': (
        lambda s: as_transformers(s, 'vit.'),
        dict(norm_layer=partial(torch.nn.LayerNorm, eps=1e-12)),
    ),
    'transformers, bare': (
        lambda s: as_transformers(s, ''),
        dict(norm_layer=partial(torch.nn.LayerNorm, eps=1e-12)),
    ),
    'transformers, distilled': (
        lambda s: as_transformers(s, 'deit.'),
        dict(
            cls=VisionTransformerDistilled,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-12),
        ),
    ),
    'transformers, dinov2': (
        lambda s: as_transformers(s, 'dinov2.', dinov2=True),
        SCALED,
    ),
    'clip': (
        partial(as_clip, openai=True),
        dict(CLIP, act_layer='quick_gelu'),
    ),
    'open_clip': (as_clip, CLIP),
    'open_clip, timm': (
        lambda s: {
            **with_prefix(s, 'visual.trunk.'),
            'visual.head.proj.weight': torch.zeros(9, 128),
            'logit_scale': torch.zeros(()),
        },
        dict(class_token=False, global_pool='map'),
    ),
    'deit3': (
        lambda s: renamed(s, (r'ls([12])\.gamma', r'gamma_\1')),
        SCALED,
    ),
    'mmpretrain': (as_mmpretrain, {}),
    'mmpretrain, scaled': (as_mmpretrain, SCALED),
    'lightning': (lambda s: {'state_dict': with_prefix(s, 'net.vit.')}, {}),
    'bfloat16': (lambda s: {k: v.bfloat16() for k, v in s.items()}, {}),
    'float64': (lambda s: {k: v.double() for k, v in s.items()}, {}),
}


@pytest.mark.parametrize('family', FAMILIES)
def test_vits_have_the_features_of_their_files(family, tmp_path):
    make, options = FAMILIES[family]
    peer = vit(**options)
    torch.save(make(peer.state_dict()), tmp_path / 'x.pth')
    if family == 'bfloat16':
        peer = peer.bfloat16().float()
    ours = CompressedViT(
        checkpoint=str(tmp_path / 'x.pth'), final_norm=True, out_type='raw'
    ).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert_close(ours(x)[-1], peer.forward_features(x), 1e-5)


@pytest.mark.parametrize(
    'family', ['timm', 'transformers', 'mmpretrain', 'transformers, distilled']
)
def test_classifiers_have_the_logits_of_their_files(family, tmp_path):
    make, options = FAMILIES[family]
    peer = vit(**options)
    torch.save(make(peer.state_dict()), tmp_path / 'x.pth')
    backbone = dict(
        type='CompressedViT',
        checkpoint=str(tmp_path / 'x.pth'),
        final_norm=True,
        out_type='raw',
        out_indices=-1,
    )
    model = ImageClassifier(backbone, 5).eval()
    assert model.has_weights
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert_close(model(x), peer(x), 1e-5)


def test_moco_vit_small_has_twelve_heads(tmp_path):
    """Its ViT-S differs from all others, which nothing but the names tell."""
    peer = vit(embed_dim=384, num_heads=12)
    torch.save(as_moco(peer.state_dict()), tmp_path / 'x.pth')
    path = str(tmp_path / 'x.pth')
    assert CompressedViT(checkpoint=path).arch.num_heads == 12
    arch = ViTArch(384, 2, 6, patch_size=8, img_size=32)
    with pytest.raises(CheckpointError, match='num_heads is 12, but the con'):
        CompressedViT(arch, checkpoint=path)


def test_what_tensors_do_not_tell_is_said(tmp_path):
    peer = vit(num_heads=4)
    torch.save(peer.state_dict(), tmp_path / 'x.pth')
    lines = []
    weights = convert(str(tmp_path / 'x.pth'), log=lines.append)
    assert weights.arch.num_heads == 2  # 64 channels to a head
    assert 'num_heads=2, norm_eps=1e-06' in lines[0]
    assert 'positions of 4×4 patches' in lines[0]
    arch = ViTArch(128, 2, 4, patch_size=8, img_size=32)
    lines.clear()
    weights = convert(str(tmp_path / 'x.pth'), arch, log=lines.append)
    assert weights.arch == arch
    assert [line.split(' from ')[0] for line in lines] == ['backbone loaded']


@pytest.mark.parametrize('final_norm', [False, 'last'])
def test_mmseg_vits(final_norm, tmp_path):
    peer = theirs(
        'VisionTransformer',
        img_size=32,
        patch_size=8,
        embed_dims=128,
        num_layers=2,
        num_heads=2,
        out_indices=(0, 1),
        norm_cfg=dict(type='LN', eps=1e-6),
        final_norm=bool(final_norm),
    )
    state = {
        **with_prefix(peer.state_dict(), 'backbone.'),
        'decode_head.conv_seg.weight': torch.zeros(3, 4, 1, 1),
    }
    torch.save({'state_dict': state, 'meta': {}}, tmp_path / 'x.pth')
    ours = CompressedViT(
        checkpoint=str(tmp_path / 'x.pth'),
        out_indices=(0, 1),
        final_norm=final_norm,
    ).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for a, b in zip(ours(x), peer(x), strict=True):
            assert_close(a, b, 1e-5)


@pytest.mark.parametrize('library', ['mmseg', 'mmdet'])
@pytest.mark.parametrize('whole', [True, False])
def test_openmmlab_swins_pad_first(library, whole, tmp_path):
    """At sizes that windows do not divide, where the order shows."""
    peer = theirs(
        'SwinTransformer',
        library,
        embed_dims=8,
        depths=(2, 2, 4, 2),
        num_heads=(1, 2, 4, 8),
    )
    prefix = 'backbone.' if whole else ''
    state = with_prefix(peer.state_dict(), prefix)
    torch.save({'state_dict': state, 'meta': {}}, tmp_path / 'x.pth')
    shape = dict(embed_dim=8, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8))
    for arch in (None, shape):
        ours = CompressedSwin(arch, checkpoint=str(tmp_path / 'x.pth')).eval()
        assert ours.arch.pad_first
        # at 224 the last grid is one window, at 100 it is smaller
        for size in ((300, 356), (224, 224), (100, 130)):
            x = torch.randn(1, 3, *size)
            with torch.no_grad():
                for a, b in zip(ours(x), peer(x)):
                    assert_close(a, b, 1e-4)


@pytest.mark.parametrize('naming', ['openmmlab', 'timm'])
@pytest.mark.parametrize('norms', [(3,), (0, 1, 2, 3)])
def test_swins_with_norms_of_outputs_are_converted(naming, norms, tmp_path):
    peer = theirs(
        'SwinTransformer',
        embed_dims=8,
        depths=(2, 2, 4, 2),
        num_heads=(1, 2, 4, 8),
        out_indices=norms,
    )
    state = peer.state_dict()
    swin = dict(family='swin', embed_dim=8, depths=(2, 2, 4, 2))
    swin['num_heads'] = (1, 2, 4, 8)
    if naming == 'timm':
        torch.save(state, tmp_path / 'y.pth')
        ours = CompressedSwin(
            checkpoint=str(tmp_path / 'y.pth'), out_indices=norms
        )
        state = dict(ours.state_dict())
    torch.save(state, tmp_path / 'x.pth')
    # under timm's names nothing tells whose weights they are
    arch = dict(swin, pad_first=True) if naming == 'timm' else None
    weights = convert(str(tmp_path / 'x.pth'), arch)
    write_checkpoint(tmp_path / 'z.pth', weights.tensors, weights.arch)
    for options in (dict(out_norms=True), dict(final_norm=True)):
        ours = CompressedSwin(
            checkpoint=str(tmp_path / 'z.pth'), out_indices=norms, **options
        ).eval()
        x = torch.randn(1, 3, 300, 356)
        with torch.no_grad():
            assert_close(ours(x)[-1], peer(x)[-1], 1e-4)


def test_mmpretrain_swins_are_shifted_as_timms(tmp_path):
    """Where one window covers the grid, its classifiers do not shift."""
    peer = timm_swin(224)
    pairs = [
        (r'^layers\.(\d)\.blocks', r'stages.\1.blocks'),
        (r'^patch_embed\.proj', 'patch_embed.projection'),
        (r'\.attn\.', '.attn.w_msa.'),
        (r'\.mlp\.fc1', '.ffn.layers.0.0'),
        (r'\.mlp\.fc2', '.ffn.layers.1'),
        (r'^norm\.', 'norm3.'),
        (r'^(?!head)', 'backbone.'),
    ]
    state = {}
    for key, value in peer.state_dict().items():
        found = re.match(r'layers\.(\d)\.downsample\.(.*)', key)
        if found:  # after a stage, and (D, row, column) for (column, row, D)
            key = f'stages.{int(found[1]) - 1}.downsample.{found[2]}'
            value = value.unflatten(-1, (2, 2, -1)).transpose(-3, -1)
            value = value.flatten(-3)
        state[key] = value
    state = renamed(state, *pairs)
    torch.save({'state_dict': state}, tmp_path / 'x.pth')
    ours = CompressedSwin(
        checkpoint=str(tmp_path / 'x.pth'), out_indices=3, final_norm=True
    ).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = peer.forward_features(x).permute(0, 3, 1, 2)
        assert_close(ours(x)[0], expected, 1e-5)


FOREIGN = {
    'a BEiT': {'blocks.0.attn.relative_position_bias_table': (732, 12)},
    'but a BEiT': {'layers.0.attn.relative_position_bias_table': (732, 12)},
    'BEiT': {'rel_pos_bias.relative_position_bias_table': (732, 12)},
    'as of SAM': {'blocks.0.attn.rel_pos_h': (27, 64)},
    'a Swin V2': {'layers.0.blocks.0.attn.cpb_mlp.0.weight': (512, 2)},
    'a ResNet': {'layer1.0.conv1.weight': (8, 8, 1, 1)},
    'names of transformers': {
        'swin.embeddings.patch_embeddings.projection.weight': (8, 3, 4, 4),
        'swin.encoder.layers.0.blocks.0.attention.self.'
        'relative_position_bias_table': (169, 3),
    },
}


@pytest.mark.parametrize('kind', FOREIGN)
@pytest.mark.parametrize('backbone', [CompressedViT, CompressedSwin])
def test_other_nets_are_named(kind, backbone, tmp_path):
    state = {key: torch.zeros(size) for key, size in FOREIGN[kind].items()}
    if 'swin' not in str(state):
        state['patch_embed.proj.weight'] = torch.zeros(8, 3, 4, 4)
        state.update({'norm.weight': torch.zeros(8)})
    torch.save(state, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=f'not a plain.*{kind}') as error:
        backbone(checkpoint=str(tmp_path / 'x.pth'))
    assert 'use CompressedSwin' not in str(error.value)


def test_several_nets_are_not_guessed_at(tmp_path):
    state = vit().state_dict()
    both = {**with_prefix(state, 'a.'), **with_prefix(state, 'b.')}
    torch.save(both, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=r'several nets \(a\., b\.\)'):
        CompressedViT(checkpoint=str(tmp_path / 'x.pth'))


@pytest.mark.parametrize('size', [(16, 64), (24, 40), (32, 40)])
def test_rectangles_are_read_as_such(size, tmp_path):
    """2×8 patches are as many as 4×4; 3×5 and [CLS], too; 4×5 are none."""
    peer = vit(img_size=size)
    torch.save(peer.state_dict(), tmp_path / 'x.pth')
    path = str(tmp_path / 'x.pth')
    arch = ViTArch(128, 2, 2, patch_size=8, img_size=size)
    options = dict(checkpoint=path, final_norm=True, out_type='raw')
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected = peer.forward_features(x)
        assert_close(
            CompressedViT(arch, **options).eval()(x)[-1], expected, 1e-5
        )
    named = arch.replace(img_size=224)
    if size != (16, 64):  # no square of all tokens: one reading
        ours = CompressedViT(named, img_size=size, **options).eval()
        with torch.no_grad():
            assert_close(ours(x)[-1], expected, 1e-5)
        if size == (32, 40):
            with pytest.raises(CheckpointError, match='no square grid'):
                CompressedViT(named, **options)
    else:
        with pytest.raises(
            CheckpointError, match=r'may be .* or .*; give the'
        ):
            CompressedViT(named, img_size=size, **options)


def test_a_square_is_resized_to_a_rectangle_of_as_many_patches(tmp_path):
    peer = vit()
    torch.save(peer.state_dict(), tmp_path / 'x.pth')
    arch = ViTArch(128, 2, 2, patch_size=8, img_size=32)
    ours = CompressedViT(
        arch, img_size=(16, 64), checkpoint=str(tmp_path / 'x.pth')
    )
    grid = peer.pos_embed[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(
        grid, (2, 8), mode='bicubic', antialias=True
    )
    expected = grid.flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours.pos_embed[:, 1:], expected)


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('config.json', {'pretrained_cfg': dict(mean=[0.5], std=[0.25])}),
        ('preprocessor_config.json', dict(image_mean=[0.5], image_std=[0.25])),
    ],
)
def test_files_of_the_hub_tell_the_normalisation(name, content, tmp_path):
    torch.save(vit().state_dict(), tmp_path / 'x.pth')
    assert convert(str(tmp_path / 'x.pth')).pretrained_cfg == {}
    (tmp_path / name).write_text(json.dumps(content))
    images = convert(str(tmp_path / 'x.pth')).pretrained_cfg
    assert images == dict(mean=(0.5,), std=(0.25,))


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    state = timm_swin(224).state_dict()
    state['layers.1.blocks.0.norm1.weight'][3] = float('nan')
    torch.save(state, tmp_path / 'x.pth')
    with pytest.raises(
        CheckpointError, match=r'NaN .*layers.1.blocks.0.norm1'
    ):
        CompressedSwin(checkpoint=str(tmp_path / 'x.pth'))
