"""Files are replaced as a whole, whoever writes them."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from disks import full_disk
from safetensors.torch import save_file

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.errors import WriteError
from mmvitcompress.inference import outputs, predicting
from mmvitcompress.utils import cli
from mmvitcompress.utils.files import (
    check_writable,
    replacing,
    write_atomically,
)

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
        with pytest.raises(WriteError, match=f'{name}.* disk full; what was'):
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


def test_numbers_that_json_does_not_have_are_null(tmp_path):
    def refuse(name):
        raise ValueError(name)

    path, nan, inf = tmp_path / 'figures.json', float('nan'), float('inf')
    cli.write_json(path, {'a': nan, 'b': [1.5, {'c': -inf}], 'd': (inf,)})
    # a strict reader, as of other languages
    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content == {'a': None, 'b': [1.5, {'c': None}], 'd': [None]}


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


@pytest.mark.parametrize(
    'write',
    [
        lambda part: part.write_bytes(bytes(9999)),
        # PyTorch tells of it by a RuntimeError, safetensors by its own
        lambda part: torch.save(torch.zeros(9999), part),
        lambda part: save_file({'a': torch.zeros(9999)}, part),
    ],
)
def test_a_full_disk_leaves_the_old_file(tmp_path, write):
    path = tmp_path / 'file'
    path.write_text('old')
    refused = pytest.raises(WriteError, match='File too large; what was there')
    with full_disk(1000), refused, replacing(path) as part:
        write(part)
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['file']


def test_other_errors_stay_what_they_are(tmp_path):
    for error in (RuntimeError('ours'), BrokenPipeError(), KeyError('k')):
        with pytest.raises(type(error)), replacing(tmp_path / 'file') as part:
            part.write_text('half')
            raise error
    assert os.listdir(tmp_path) == []


def test_what_refuses_is_named(tmp_path):
    (tmp_path / 'file').write_text('old')
    for path in (tmp_path / 'file/below', tmp_path / ('x' * 999), tmp_path):
        with pytest.raises(WriteError, match=r'cannot be written: \w+'):
            write_atomically(path, b'')
    assert (tmp_path / 'file').read_text() == 'old'
    name = 'ä' * 127  # 254 of the 255 bytes that a name may have
    write_atomically(tmp_path / name, b'new')
    write_atomically(tmp_path / os.fsdecode(b'\xff'), b'new')
    assert len(os.listdir(tmp_path)) == 3


def test_several_may_write_one_file(tmp_path):
    """Each file that is seen is a whole one."""
    path = tmp_path / 'file'
    contents = [bytes([i]) * 50_000 for i in range(4)]

    def write(content):
        for _ in range(25):
            write_atomically(path, content)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents))
    assert os.listdir(tmp_path) == ['file']


def test_where_nothing_can_be_written_is_known_before(tmp_path):
    (tmp_path / 'file').write_text('old')
    wrong = {
        tmp_path: 'it is a folder',
        tmp_path / 'file/below': 'is no folder',
        tmp_path / 'file/below/more': 'is no folder',
        tmp_path / ('x' * 999): 'File name too long',
    }
    for path, reason in wrong.items():
        with pytest.raises(WriteError, match=f'be written: .*{reason}'):
            check_writable(path)
    for path in ('file', 'new', 'a/b/c.json', '/dev/stdout'):
        check_writable(tmp_path / path)
    assert os.listdir(tmp_path) == ['file']
    check_writable('figures.json')  # here
