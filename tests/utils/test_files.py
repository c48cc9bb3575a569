"""Files are replaced as a whole, whoever writes them."""

import json
import os

import pytest
import torch

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.inference import outputs, predicting
from mmvitcompress.utils import cli
from mmvitcompress.utils.files import replacing, write_atomically

ARCH = ViTArch(embed_dim=8, depth=1, num_heads=2)
WRITERS = {
    'bytes.bin': lambda path: write_atomically(path, b'new'),
    'text.txt': lambda path: write_atomically(path, 'nü'),
    'figures.json': lambda path: cli.write_json(path, {'a': 1}),
    'predictions.json': lambda path: predicting.write_json(path, {'a': 1}),
    'record.json': lambda path: outputs.write_json(path, {'a': 1}),
    'arch.json': ARCH.save,
    'a.pth': lambda path: write_checkpoint(path, tensors(), ARCH),
    'a.safetensors': lambda path: write_checkpoint(path, tensors(), ARCH),
}


def tensors():
    return {'weight': torch.zeros(2)}


@pytest.mark.parametrize('name', WRITERS)
def test_a_broken_write_leaves_the_old_file(name, tmp_path, monkeypatch):
    path = tmp_path / 'sub' / name
    WRITERS[name](path)
    written = path.read_bytes()
    path.write_bytes(b'old')

    def broken(descriptor):
        raise OSError('disk full')

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', broken)
        with pytest.raises(OSError, match='disk full'):
            WRITERS[name](path)
    assert path.read_bytes() == b'old'
    assert os.listdir(path.parent) == [name]
    WRITERS[name](path)
    # safetensors writes its metadata in any order
    assert sorted(path.read_bytes()) == sorted(written)
    assert os.listdir(path.parent) == [name]


def test_what_is_no_json_leaves_the_old_file(tmp_path):
    path = tmp_path / 'figures.json'
    cli.write_json(path, {'a': 1})
    with pytest.raises(TypeError, match='not JSON serializable'):
        cli.write_json(path, {'b': 2, 'c': torch})
    assert json.loads(path.read_text()) == {'a': 1}


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / 'file'
    path.write_text('old')
    with replacing(path) as part:
        part.write_text('half')
        assert path.read_text() == 'old'
    assert path.read_text() == 'half'


def test_links_are_followed(tmp_path):
    target, link = tmp_path / 'runs' / 'target', tmp_path / 'link'
    target.parent.mkdir()
    link.symlink_to(target)
    write_atomically(link, b'new')
    assert link.is_symlink() and target.read_bytes() == b'new'


def test_what_is_no_file_is_written_to():
    """As --json /dev/stdout, which is a link to a pipe."""
    reader, writer = os.pipe()
    write_atomically(f'/proc/self/fd/{writer}', b'content')
    os.close(writer)
    assert os.read(reader, 100) == b'content'
    os.close(reader)
