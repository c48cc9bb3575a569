"""Checkpoints that disks, networks, scripts and attackers have changed."""

import io
import json
import os
import pickle
import zipfile

import pytest
import torch
from malformed import accepted, cases, damaged, in_turn, odd, told
from mmengine.registry import MODELS

from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.checkpoints.file import read_checkpoint, write_checkpoint
from mmvitcompress.models.vit import ViT

pytestmark = pytest.mark.slow

ARCH = dict(embed_dim=24, depth=3, num_heads=3, patch_size=8, img_size=32)
FLOATS = torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn
OTHERS = torch.int8, torch.bool, torch.complex64, torch.int64, torch.uint8


@pytest.fixture(scope='module')
def weights():
    torch.manual_seed(0)
    return ViT(get_arch(ARCH)).state_dict()


def write(kind, path, weights):
    """A checkpoint as we, timm, training runs and safetensors write it."""
    if kind in ('pth', 'safetensors'):
        write_checkpoint(path, weights, get_arch(ARCH), source='x')
    elif kind == 'run':
        whole = {f'backbone.{key}': value for key, value in weights.items()}
        torch.save(dict(state_dict=whole, meta=dict(epoch=1)), path)
    else:
        zipped = kind == 'plain'
        torch.save(weights, path, _use_new_zipfile_serialization=zipped)


KINDS = 'pth', 'safetensors', 'run', 'plain', 'legacy'


def build(path, **changes):
    """A backbone of the checkpoint, its tensors and maps of an image."""
    whole = read_checkpoint(path).whole
    if whole:  # its backbone alone
        tensors = read_checkpoint(path).state_dict
        tensors = {k.removeprefix('backbone.'): v for k, v in tensors.items()}
        path = path.with_name('own.pth')
        torch.save(tensors, path)
    config = dict(type='mmvitcompress.CompressedViT', checkpoint=str(path))
    model = MODELS.build(config | dict(arch=ARCH) | changes).eval()
    with torch.no_grad():
        maps = model(torch.rand(1, 3, 32, 40))
    return model.state_dict(), maps


def equal(found, weights):
    # the last norm is no part of a backbone that doesn't use it
    assert {*weights} - {*found} <= {'norm.weight', 'norm.bias'}
    return all(
        torch.equal(value.float(), weights[key].float())
        for key, value in found.items()
    )


@cases('damaged checkpoints')
def test_a_damaged_file_is_intact_or_refused(rng, tmp_path, weights, capsys):
    kind = in_turn(rng, KINDS)
    path = tmp_path / f'w.{"safetensors" if kind == "safetensors" else "pth"}'
    write(kind, path, weights)
    before = read_checkpoint(path).state_dict
    path.write_bytes(damaged(rng, path.read_bytes()))
    found = []
    if accepted(lambda: found.extend(build(path)), [path.name], capsys):
        after = read_checkpoint(path).state_dict
        assert {*after} == {*before}
        # without a checksum nobody can tell values that a flip has changed
        if kind in ('pth', 'safetensors'):
            assert equal(found[0], weights)


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path, how):
        self.path, self.how = path, how

    def __reduce__(self):
        return [
            (os.mkdir, (self.path,)),
            (eval, (f'__import__("os").mkdir({self.path!r})',)),
            (open, (self.path, 'w')),
            (os.system, (f'mkdir {self.path}',)),
        ][self.how]


@cases('bombs')
def test_no_code_of_a_file_runs(rng, tmp_path, weights, capsys):
    bomb = Bomb(str(tmp_path / 'ran'), rng.randrange(4))
    places = dict(
        alone=bomb,
        beside=dict(state_dict=weights, other=bomb),
        within=dict(weights, extra=bomb),
        meta=dict(state_dict=weights, meta=dict(arch=bomb)),
        key={'a': {(bomb,): 1}, **weights},
    )
    content = places[in_turn(rng, places)]
    path = tmp_path / rng.choice(['w.pth', 'w.bin', 'w.safetensors'])
    how = rng.randrange(4)
    if how == 0:
        path.write_bytes(pickle.dumps(content, rng.randrange(2, 6)))
    elif how == 1:
        torch.save(content, path)
    elif how == 2:
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:  # into an honest archive
        file = io.BytesIO()
        torch.save(weights, file)
        with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, 'w') as new:
            for name in old.namelist():
                data = old.read(name)
                if name.endswith('data.pkl'):
                    data = pickle.dumps(content, 2)
                new.writestr(name, data)
    assert not accepted(lambda: build(path), [path.name], capsys)
    assert not (tmp_path / 'ran').exists()


def changed(rng, weights, meta):
    """Odd contents, what of them a message may name, and what is right."""
    weights = dict(weights)
    key = rng.choice(sorted(weights))
    value, right = weights[key], None
    if rng.random() < 0.3:
        place = rng.choice(['arch', 'head', 'pretrained_cfg', 'metrics'])
        content = odd(rng, meta.get(place))
        meta = meta | {place: content}
        return weights, meta, [place, *told(content)], weights
    how = rng.randrange(12)
    if how == 0:
        weights = {k: v.to(rng.choice(FLOATS)) for k, v in weights.items()}
        right = dict(weights)
    elif how == 1:
        weights[key] = value.to(rng.choice(FLOATS))
        right = dict(weights)
    elif how == 2:
        weights[key] = value.to(rng.choice(OTHERS))
    elif how == 3:
        flat = value.reshape(-1)
        scaled = torch.quantize_per_tensor(flat, 0.1, 0, torch.qint8)
        weights[key] = rng.choice([value.to_sparse(), scaled])
    elif how == 4:
        shape = rng.choice([(), (0,), (1,), (*value.shape, 2), (7, 7, 7)])
        weights[key] = torch.zeros(shape)
    elif how == 5:
        weights[key] = value * rng.choice([float('nan'), float('inf')])
    elif how == 6:
        del weights[key]
    elif how == 7:
        weights[key] = odd(rng)
    elif how == 8:
        weights[rng.choice([0, None, ('a',), 3.5, True])] = value
    elif how == 9:
        weights[rng.choice(['', 'x' * 500, 'blocks.99.norm1.weight'])] = value
    elif how == 10:
        weights = {f'{odd(rng)}.{k}': v for k, v in weights.items()}
    else:
        weights = odd(rng, weights)
    return weights, meta, [key, 'x.pth'], right


@cases('odd checkpoints')
def test_odd_contents_are_right_or_refused(rng, tmp_path, weights, capsys):
    path, noted = tmp_path / 'x.pth', dict(arch=get_arch(ARCH).to_dict())
    content, meta, words, right = changed(rng, weights, noted)
    torch.save(dict(state_dict=content, meta=meta), path)
    found = []
    own = rng.choice([{}, dict(arch=None)])
    if accepted(lambda: found.extend(build(path, **own)), words, capsys):
        assert equal(found[0], right or weights)
        assert all(map_.isfinite().all() for map_ in found[1])


@cases('odd headers')
def test_odd_headers_of_safetensors(rng, tmp_path, weights, capsys):
    path = tmp_path / 'w.safetensors'
    write('safetensors', path, weights)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], 'little')
    header = json.loads(content[8 : 8 + size])
    key = rng.choice(sorted(header))
    inner = rng.choice([*header[key], None])
    new = odd(rng, header[key] if inner is None else header[key][inner])
    if inner is not None:
        new = header[key] | {inner: new}
    text = json.dumps(header | {key: new}, default=str).encode()
    path.write_bytes(
        len(text).to_bytes(8, 'little') + text + content[8 + size :]
    )
    found = []
    if accepted(lambda: found.extend(build(path)), [path.name], capsys):
        assert equal(found[0], weights)
