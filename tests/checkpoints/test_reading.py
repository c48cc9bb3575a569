"""What files hold, told by their contents; what others' wrappers hide."""

import os
import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save_file

import mmvitcompress
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.file import read_checkpoint, write_checkpoint
from mmvitcompress.errors import CheckpointError
from mmvitcompress.models import CompressedViT
from mmvitcompress.models.vit import ViT

ARCH = ViTArch(8, 2, 2, patch_size=4, img_size=8)
STATE = {'norm.weight': torch.arange(3.0), 'norm.bias': torch.ones(2)}


class Payload:
    def __reduce__(self):
        return os.system, ('touch pwned',)


@pytest.mark.parametrize(
    ('content', 'kind'),
    [
        (b'<!DOCTYPE html><html>', 'a web page'),
        (b'\n <html lang="en">', 'a web page'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'Git LFS'),
        (b'', 'an empty file'),
        (b'\x89HDF\r\n\x1a\n', 'HDF5'),
        (b'epoch: 3\nlr: 0.1\n', "text file, which starts with 'epoch: 3'"),
        (b'PK\x03\x04' + bytes(200), 'truncated or no checkpoint'),
        (bytes(range(200, 256)), 'truncated or no checkpoint'),
        (pickle.dumps(Payload(), 2), 'holds posix.system, more than'),
        (pickle.dumps([1, 2], 2), 'truncated or no checkpoint'),
    ],
)
@pytest.mark.parametrize('name', ['x.pth', 'x.bin'])
def test_what_is_no_checkpoint_is_named(content, kind, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=kind) as caught:
        read_checkpoint(path)
    assert 'weights_only' not in str(caught.value)
    assert ('run code' in str(caught.value)) == ('posix' in kind)


@pytest.mark.parametrize('name', ['x.bin', 'x.pth', 'x.safetensors'])
def test_the_contents_tell_the_format_not_the_name(name, tmp_path):
    save_file(STATE, tmp_path / name)
    assert read_checkpoint(tmp_path / name).state_dict.keys() == STATE.keys()
    torch.save(STATE, tmp_path / name)
    assert read_checkpoint(tmp_path / name).state_dict.keys() == STATE.keys()


OTHER = {key: value + 1 for key, value in STATE.items()}


@pytest.mark.parametrize(
    ('content', 'noted'),
    [
        ({'teacher': STATE}, ''),
        ({'student': OTHER, 'teacher': STATE, 'epoch': 3}, 'teacher is taken'),
        ({'teacher': STATE, 'dino_loss': {'center': torch.ones(1, 9)}}, ''),
        ({'model_ema': STATE}, ''),
        ({'state_dict_ema': STATE, 'args': None}, ''),
        ({'model': STATE, 'model_ema': OTHER}, 'model is taken'),
        ({'state_dict': {'model': STATE}}, ''),
        ({'my_net': STATE, 'optimizer': {'state': {}, 'groups': []}}, ''),
        ({f'module.{k}': v for k, v in STATE.items()}, ''),
        ({f'_orig_mod.module.{k}': v for k, v in STATE.items()}, ''),
        ({f'module._orig_mod.{k}': v for k, v in STATE.items()}, ''),
        ({'epoch': torch.tensor(3), 'model': STATE}, ''),
    ],
)
def test_wrappers_are_taken_off(content, noted, tmp_path):
    torch.save(content, tmp_path / 'x.pth')
    checkpoint = read_checkpoint(tmp_path / 'x.pth')
    assert checkpoint.state_dict.keys() == STATE.keys()
    for key, value in STATE.items():
        assert torch.equal(checkpoint.state_dict[key], value)
    assert noted in ' '.join(checkpoint.notes)
    assert bool(noted) == bool(checkpoint.notes)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'one': STATE, 'two': OTHER}, 'keys one, two; save its state dict'),
        ({'epoch': 3}, 'no tensors of one model, but the keys epoch'),
        ({}, r'keys \(none\)'),
        ({5: torch.ones(1)}, 'tensor 5 under a key that is no name'),
        ({'a.weight': torch.ones(3, 3).to_sparse()}, "'a.weight' that is spa"),
        ({'a.weight': torch.ones(3, device='meta')}, "'a.weight' without its"),
        ({'state_dict': STATE, 'meta': {'arch': 'vit'}}, 'meta.arch .* dict'),
    ],
)
def test_what_holds_no_state_dict_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=message):
        _ = read_checkpoint(tmp_path / 'x.pth').arch


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('embed_dim', 10**9),
        ('depth', 10**9),
        ('img_size', [10**9, 8]),
        ('embed_dim', 10**4),
    ],
)
def test_sizes_are_compared_before_anything_is_made(name, size, tmp_path):
    arch = {**ARCH.to_dict(), name: size}
    for widths in ('qk_dims', 'v_dims', 'mlp_dims'):
        del arch[widths]
    state = {'state_dict': ViT(ARCH).state_dict(), 'meta': {'arch': arch}}
    torch.save(state, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=r'= 1[0-9]+, more'):
        CompressedViT(checkpoint=str(tmp_path / 'x.pth'))


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_a_flipped_bit_is_found(suffix, tmp_path):
    path = tmp_path / f'x.{suffix}'
    write_checkpoint(path, ViT(ARCH).state_dict(), ARCH, source='test')
    content = path.read_bytes()
    values = ViT(ARCH).state_dict()['blocks.0.mlp.fc1.weight']
    expected = read_checkpoint(path)
    at = content.index(
        expected.state_dict['blocks.0.mlp.fc1.weight'].numpy().tobytes()
    )
    for bit in range(0, 8 * values.nbytes, 997):
        flipped = bytearray(content)
        flipped[at + bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match='its checksum differs'):
            read_checkpoint(path)
    path.write_bytes(content.replace(b'test', b'tent'))
    with pytest.raises(CheckpointError, match='its checksum differs'):
        read_checkpoint(path)
    path.write_bytes(content)
    assert read_checkpoint(path).arch == ARCH


def test_whoever_saves_a_backbone_saves_its_arch(tmp_path):
    """As MMSegmentation's own tools do: a state dict, and no meta data."""
    arch = ARCH.replace(qk_dims=2, token_merging=dict(layers=(2,)))
    model = CompressedViT(arch)
    whole = torch.nn.ModuleDict({'backbone': model})
    for state in (model.state_dict(), whole.state_dict()):
        torch.save({'state_dict': state, 'meta': {}}, tmp_path / 'x.pth')
        assert read_checkpoint(tmp_path / 'x.pth').arch == arch
        again = CompressedViT(checkpoint=str(tmp_path / 'x.pth'))
        assert torch.equal(
            again.blocks[1].attn.qkv.weight, model.blocks[1].attn.qkv.weight
        )


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of a folder, and where downloads are kept."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.delenv('http_proxy', raising=False)
    (tmp_path / 'www').mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / 'www')
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{httpd.server_port}', tmp_path / 'www'
        httpd.shutdown()


def test_urls_are_downloaded_once(server):
    address, folder = server
    torch.save(STATE, folder / 'x.pth')
    (folder / 'y').mkdir()
    torch.save(OTHER, folder / 'y/x.pth')
    for _ in range(2):
        for place, state in (('', STATE), ('y/', OTHER)):
            read = read_checkpoint(f'{address}/{place}x.pth').state_dict
            assert torch.equal(read['norm.bias'], state['norm.bias'])
        (folder / 'x.pth').unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=f'{address}/z.pth.*give the f'):
        read_checkpoint(f'{address}/z.pth')


@pytest.mark.parametrize(
    'url', ['torchvision://nothing', 's3://bucket/x.pth', 'mmcls://nothing']
)
def test_addresses_that_nobody_knows_are_refused(url):
    with pytest.raises(CheckpointError, match=f"'{url}' is at no address"):
        read_checkpoint(url)


@pytest.mark.parametrize('path', [123, None, ['x.pth']])
def test_a_path_is_text(path):
    with pytest.raises(CheckpointError, match='must be the path of a file'):
        read_checkpoint(path)


def test_a_folder_is_told_from_a_file(tmp_path):
    with pytest.raises(CheckpointError, match='is a folder; give a file'):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize('name', ['head', 'pretrained_cfg'])
@pytest.mark.parametrize('value', [-1, [1], 'x'])
def test_odd_meta_data_are_named(name, value, tmp_path):
    path = tmp_path / 'x.pth'
    write_checkpoint(path, ViT(ARCH).state_dict(), ARCH, **{name: value})
    with pytest.raises(CheckpointError, match=f'meta.{name} .* dict'):
        mmvitcompress.load(path)
