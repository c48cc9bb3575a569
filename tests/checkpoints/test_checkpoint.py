"""Checkpoints: both forms, conversion, strictness, and what is refused."""

import argparse
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from swins import randomised
from warm import warm_python

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.checkpoints.convert import convert
from mmvitcompress.checkpoints.file import read_checkpoint, write_checkpoint
from mmvitcompress.checkpoints.names import to_timm_keys
from mmvitcompress.checkpoints.shapes import infer_arch
from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.models import CAITDeiT, CompressedViT, ViT

ROOT = Path(__file__).parents[2]
TINY = 'deit_tiny_patch16_224'


@pytest.fixture(scope='module')
def deit():
    torch.manual_seed(0)
    return timm.create_model(TINY).state_dict()


@pytest.fixture
def pruned(tmp_path):
    """A pruned, merged checkpoint and the model that wrote it."""
    arch = get_arch('deit_tiny').replace(
        qk_dims=[40] * 12,
        v_dims=[48] * 12,
        mlp_dims=[500 + i for i in range(12)],
        token_merging=dict(layers=(4, 8), directions='vertical'),
    )
    model = CompressedViT(arch, final_norm=True).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path / 'pruned.pth'
    write_checkpoint(path, model.state_dict(), arch, source='test')
    return path, model


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_round_trip(pruned, tmp_path, suffix):
    _, model = pruned
    path = tmp_path / f'again.{suffix}'
    state = {**model.state_dict(), 'head.weight': torch.randn(10, 192)}
    write_checkpoint(path, state, model.arch, source='x', metrics={'top1': 1})
    checkpoint = read_checkpoint(path)
    tensors, meta = checkpoint.state_dict, checkpoint.meta
    assert checkpoint.arch == model.arch
    assert meta['source'] == 'x' and meta['metrics'] == {'top1': 1}
    assert set(tensors) == set(state)
    assert all(torch.equal(tensors[k], state[k]) for k in state)
    assert not list(tmp_path.glob('*.part'))


def test_a_pruned_checkpoint_brings_its_arch(pruned):
    path, model = pruned
    x = torch.randn(1, 3, 224, 224)
    for arch in (None, 'deit_tiny'):
        other = CAITDeiT(arch, checkpoint=str(path), final_norm=True).eval()
        assert other.arch == model.arch
        with torch.no_grad():
            for a, b in zip(other(x), model(x)):
                assert torch.equal(a, b)


def test_fewer_outputs_need_fewer_blocks(pruned):
    path, model = pruned
    other = CompressedViT(checkpoint=str(path), out_indices=[1, 4]).eval()
    x = torch.randn(1, 3, 64, 64)
    model.out_indices, model.norm = (1, 4), None
    with torch.no_grad():
        for a, b in zip(other(x), model(x)):
            assert torch.equal(a, b)


def test_merges_can_be_added_to_a_dense_checkpoint(deit, tmp_path):
    path = tmp_path / 'deit.pth'
    torch.save({'model': deit}, path)
    model = CompressedViT(
        'deit_tiny', token_merging=dict(layers=(4,)), checkpoint=str(path)
    )
    weight = model.token_merging['3'].fuse.weight
    half = torch.eye(192) / 2
    assert torch.equal(weight, torch.cat([half, half], 1))


def test_position_embedding_is_resized(deit, tmp_path):
    path = tmp_path / 'deit.pth'
    torch.save(deit, path)
    model = CompressedViT(
        'deit_tiny', img_size=(512, 320), checkpoint=str(path)
    )
    assert model.pos_embed.shape == (1, 1 + 32 * 20, 192)
    peer = timm.create_model(TINY, img_size=(512, 320))
    peer.load_state_dict(
        timm.models.vision_transformer.checkpoint_filter_fn(dict(deit), peer)
    )
    torch.testing.assert_close(model.pos_embed, peer.pos_embed)


@pytest.mark.parametrize('wrapper', ['', 'module.', 'backbone.'])
def test_wrappers_are_stripped(deit, wrapper):
    keys = to_timm_keys({wrapper + k: v for k, v in deit.items()})
    assert set(keys) == set(deit)


@pytest.mark.parametrize(
    'name, arch',
    [
        (TINY, 'deit_tiny'),
        ('deit_tiny_distilled_patch16_224', 'deit_distilled_tiny'),
        ('deit3_small_patch16_224', 'deit3_small'),
        ('vit_small_patch14_dinov2', 'dinov2_small'),
        ('vit_small_patch14_reg4_dinov2', 'dinov2_reg4_small'),
    ],
)
def test_shape_is_read_off_the_tensors(name, arch):
    state_dict = timm.create_model(name).state_dict()
    assert infer_arch(to_timm_keys(state_dict)) == get_arch(arch)


@pytest.mark.parametrize('stem', ['linear', 'conv'])
def test_channels_are_read_off_the_tensors(stem, tmp_path):
    """Of the image: a grey one's, or a satellite's."""
    arch = get_arch('deit_tiny').replace(in_chans=5, stem=stem, img_size=32)
    model = CompressedViT(arch, final_norm=True)
    assert infer_arch(model.state_dict()) == arch
    path = tmp_path / 'five.pth'
    torch.save(model.state_dict(), path)
    loaded = CompressedViT(checkpoint=str(path), final_norm=True)
    image = torch.randn(1, 5, 32, 32)
    with torch.no_grad():
        for a, b in zip(loaded.eval()(image), model.eval()(image)):
            assert torch.equal(a, b)
    refused(
        path,
        'in_chans is 5.* asks for 3',
        arch=dict(base='deit_tiny', stem=stem),
    )


def test_original_dinov2_registers():
    """DINOv2 adds a position to [CLS] before it inserts the registers."""
    peer = timm.create_model('vit_small_patch14_reg4_dinov2', img_size=28)
    own = peer.state_dict()
    theirs = {k: v for k, v in own.items() if k != 'reg_token'}
    theirs['register_tokens'] = own['reg_token']
    theirs['mask_token'] = torch.zeros(1, 384)
    position = torch.randn(1, 1, 384)
    theirs['cls_token'] = own['cls_token'] - position
    theirs['pos_embed'] = torch.cat([position, own['pos_embed']], 1)
    converted = to_timm_keys(theirs)
    assert set(converted) == set(own)
    for key in own:
        torch.testing.assert_close(converted[key], own[key])


def test_lvvit_keys():
    model = CompressedViT('lvvit_small', final_norm=True)
    theirs = {
        key.replace('patch_embed.conv', 'patch_embed.conv.conv').replace(
            'patch_embed.bn', 'patch_embed.conv.bn'
        ): value
        for key, value in model.state_dict().items()
    }
    theirs['aux_head.weight'] = torch.zeros(1000, 384)
    converted = to_timm_keys(theirs)
    assert infer_arch(converted, get_arch('lvvit_small')) == model.arch
    assert set(converted) - set(model.state_dict()) == {'aux_head.weight'}


def test_deit_training_files_are_read(deit, tmp_path):
    """They hold the script's argparse.Namespace, which is harmless."""
    path = tmp_path / 'deit.pth'
    flags = argparse.Namespace(lr=1e-3)
    torch.save({'model': deit, 'args': flags, 'epoch': 3}, path)
    weights = convert(str(path))
    state_dict, arch = weights.tensors, weights.arch
    assert arch == get_arch('deit_tiny')
    assert set(state_dict) == set(deit)


def test_a_timm_model_by_name(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(
        timm, 'create_model', lambda name, pretrained: create(name)
    )
    weights = convert(TINY)
    state_dict, arch = weights.tensors, weights.arch
    assert arch == get_arch('deit_tiny') and 'head.weight' in state_dict


def test_the_tool_keeps_the_normalisation(monkeypatch, tmp_path):
    """ViTs of augreg have mean and deviation 0.5, DeiT ImageNet's."""
    create = timm.create_model
    monkeypatch.setattr(
        timm, 'create_model', lambda name, pretrained: create(name, depth=1)
    )
    target = str(tmp_path / 'x.safetensors')
    script = str(ROOT / 'tools/convert_checkpoint.py')
    for name, mean in ((TINY, 0.485), ('vit_tiny_patch16_224', 0.5)):
        argv = [script, name, target, '--overwrite']
        monkeypatch.setattr(sys, 'argv', argv)
        runpy.run_path(script)['main']()
        images = read_checkpoint(target).noted('pretrained_cfg')
        assert images['mean'][0] == mean and len(images['std']) == 3


@pytest.mark.parametrize(
    'name',
    [
        'eva02_tiny_patch14_224',
        'vit_base_patch32_siglip_256',
        'beit3_base_patch16_224',
    ],
)
def test_timm_models_without_a_norm_or_with_a_pool(monkeypatch, name):
    create = timm.create_model

    def small(name, pretrained):
        options = dict(embed_dim=64, num_heads=2, depth=2, mlp_ratio=2)
        return randomised(create(name, **options))

    monkeypatch.setattr(timm, 'create_model', small)
    weights = convert(name)
    assert ('norm.weight' in weights.tensors) == ('siglip' in name)


@pytest.mark.parametrize('name', ['vit_relpos_small_patch16_224', 'resnet18'])
def test_other_timm_models_are_refused(monkeypatch, name):
    create = timm.create_model
    monkeypatch.setattr(
        timm, 'create_model', lambda name, pretrained: create(name)
    )
    with pytest.raises(ConfigError, match='cannot be compressed'):
        convert(name)


@pytest.mark.parametrize(
    ('value', 'error', 'message'),
    [
        (0.0, ConfigError, 'differ'),
        (float('nan'), CheckpointError, 'NaN or infinite values in norm.w'),
        (float('inf'), CheckpointError, 'NaN or infinite values in norm.w'),
    ],
)
def test_a_timm_model_that_cannot_be_compared_is_refused(
    monkeypatch, value, error, message
):
    """Its features are zero, not numbers, or infinite."""
    create = timm.create_model

    def broken(name, pretrained):
        model = create(name, depth=1)
        torch.nn.init.constant_(model.norm.weight, value)
        return model

    monkeypatch.setattr(timm, 'create_model', broken)
    with pytest.raises(error, match=message):
        convert(TINY)


def refused(path, message, **kwargs):
    with pytest.raises(CheckpointError, match=message) as caught:
        CompressedViT(**{'arch': 'deit_tiny', **kwargs}, checkpoint=str(path))
    assert str(path) in str(caught.value)


class Payload:
    def __reduce__(self):
        return os.system, ('touch pwned',)


def test_unreadable_files_are_refused(deit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'deit.pth'
    refused(path, 'not found.*convert_checkpoint.*model.backbone.checkpoint')
    torch.save(deit, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, 'truncated')
    path.write_bytes(b'no checkpoint at all')
    refused(path, "a text file, which starts with 'no checkpoint")
    torch.save({'model': deit, 'code': Payload()}, path)
    refused(path, 'might run code')
    assert not (tmp_path / 'pwned').exists()
    torch.save([1, 2], path)
    refused(path, 'holds a list')
    torch.save({'epoch': 3}, path)
    refused(path, 'holds no tensors')
    path = tmp_path / 'deit.safetensors'
    path.write_bytes(b'{"broken')
    refused(path, 'truncated or no safetensors')


def test_other_archs_are_refused(deit, pruned, tmp_path):
    path = tmp_path / 'deit.pth'
    torch.save(deit, path)
    refused(path, 'embed_dim is 192.* asks for 384', arch='deit_small')
    refused(path, 'no life predictor', patch_slimming={})
    lacking = {k: v for k, v in deit.items() if k != 'blocks.3.norm2.bias'}
    torch.save(lacking, path)
    refused(path, 'lacks blocks.3.norm2.bias')
    torch.save({**deit, 'blocks.0.attn.p_norm.weight': torch.ones(64)}, path)
    refused(path, r'unexpected blocks.0.attn.p_norm.weight')
    torch.save({**deit, 'norm1.weight': torch.ones(1)}, path)
    refused(path, 'unexpected norm1.weight')
    torch.save(timm.create_model('resnet18').state_dict(), path)
    refused(path, 'not a plain ViT')
    torch.save(dict(pruned[1].state_dict()), path)  # the arch was lost
    refused(path, 'must carry its arch')


def test_mis_shaped_tensors_are_refused(pruned, tmp_path):
    _, model = pruned
    path = tmp_path / 'bad.pth'
    state = model.state_dict()
    state['blocks.2.mlp.fc1.weight'] = torch.zeros(7, 192)
    write_checkpoint(path, state, model.arch)
    refused(path, r'blocks.2.mlp.fc1.weight is \(7, 192\).* \(502, 192\)')


@pytest.mark.parametrize('kind', [torch.int8, torch.bool, torch.complex64])
def test_weights_that_are_no_real_numbers_are_refused(pruned, tmp_path, kind):
    path, (_, model) = tmp_path / 'int.pth', pruned
    state = model.state_dict()
    name = 'blocks.0.norm1.weight'
    state[name] = state[name].to(kind)
    write_checkpoint(path, state, model.arch)
    refused(path, f'quantized, .* {name} is {kind}; give it in floating')


def test_float8_is_read_exactly(pruned, tmp_path):
    path, (_, model) = tmp_path / 'float8.pth', pruned
    state = model.state_dict()
    stored = state['blocks.0.attn.qkv.weight'].to(torch.float8_e4m3fn)
    state['blocks.0.attn.qkv.weight'] = stored
    write_checkpoint(path, state, model.arch)
    found = CompressedViT(checkpoint=path).blocks[0].attn.qkv.weight
    assert torch.equal(found, stored.float())


def tool(*args, cwd):
    return subprocess.run(
        [warm_python(), str(ROOT / 'tools/convert_checkpoint.py'), *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '1'},
    )


@pytest.mark.slow
def test_tool(deit, tmp_path):
    torch.save({'model': deit}, tmp_path / 'deit.pth')
    done = tool('deit.pth', 'out/deit.safetensors', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '5.72 M parameters, 1.26 GMACs' in done.stdout
    target = str(tmp_path / 'out/deit.safetensors')
    model = CompressedViT(checkpoint=target)
    assert torch.equal(
        model.blocks[3].attn.qkv.weight, deit['blocks.3.attn.qkv.weight']
    )
    again = tool('deit.pth', 'out/deit.safetensors', cwd=tmp_path)
    assert again.returncode == 1 and '--overwrite' in again.stderr
    missing = tool('deit_tiny_patch16_224.fb_in1k', 'x.pth', cwd=tmp_path)
    assert missing.returncode == 1
    assert 'could not be downloaded' in missing.stderr
    assert missing.stderr.count('\n') == 1, missing.stderr


@pytest.mark.parametrize(
    ('dim', 'depth'),
    [
        (96, 12),  # as wide and deep as a Swin-Tiny
        (128, 24),  # as a Swin-Base
        (384, 16),  # as an LV-ViT-Small
    ],
)
def test_archs_of_another_family_lend_nothing(dim, depth):
    shape = ViTArch(dim, depth, max(1, dim // 64), patch_size=32, mlp_dims=8)
    with torch.device('meta'):
        tensors = ViT(shape).state_dict()
    assert infer_arch(tensors) == shape
