"""Which exceptions of a tool become one line, and which keep a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import TensorDataset

from mmvitcompress.utils import cli


class Model(nn.Module):
    def __init__(self, width=1, **kwargs):
        super().__init__()
        self.layer = nn.Linear(width, width, **kwargs)


def outcome(main, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    return stop.value.code, capsys.readouterr().err


def build(**config):
    return lambda: MODELS.build(config)


@pytest.mark.parametrize('key', ['widht', 'wdith'])
@pytest.mark.parametrize('kind', [Model, nn.Linear])
def test_a_key_that_nobody_knows(kind, key, capsys):
    status, stderr = outcome(build(type=kind, **{key: 1}), capsys)
    assert status == 1
    assert len(stderr.splitlines()) == 1
    assert f"'{key}'; remove or correct it in the config" in stderr


def test_a_key_that_no_loader_knows(capsys):
    """MMEngine's runner makes loaders without a registry."""
    dataset = TensorDataset()
    loader = dict(dataset=dataset, sampler=None, batch_size=1, shufle=1)
    status, stderr = outcome(
        lambda: Runner.build_dataloader(loader, seed=0), capsys
    )
    assert status == 1
    assert "'shufle'; remove or correct it in the config" in stderr


def test_a_type_that_nobody_knows(capsys):
    status, stderr = outcome(build(type='RestNet'), capsys)
    assert status == 1
    assert len(stderr.splitlines()) == 1
    assert 'RestNet is not in the' in stderr


def test_a_value_that_a_library_refuses(capsys):
    status, stderr = outcome(build(type=Model, width='a'), capsys)
    assert status == 1
    assert 'the config cannot be built' in stderr and 'TypeError' in stderr


def test_values_of_what_cannot_be_built_are_shown(capsys):
    MODELS.register_module(name='Fussy', module=nn.Linear, force=True)
    values = dict(in_features='a', out_features=[2] * 99)
    status, stderr = outcome(build(type='Fussy', **values), capsys)
    assert status == 1
    assert "at Fussy(in_features='a', out_features=[2, 2, 2," in stderr
    assert len(stderr) < 400


@pytest.mark.parametrize(
    'take',
    [
        lambda: torch.empty(1 << 50),
        lambda: np.empty(1 << 50),
        lambda: [0] * (1 << 50),
    ],
    ids=['torch', 'numpy', 'python'],
)
def test_too_little_memory_is_said_in_a_sentence(take, capsys):
    status, stderr = outcome(take, capsys)
    assert status == 1
    assert 'memory is short' in stderr and 'take smaller images' in stderr


def test_names_that_no_file_can_have(capsys):
    for name in ('x' * 5000, f'{__file__}/below'):
        status, stderr = outcome(Path(name).read_text, capsys)
        assert status == 1
        assert len(stderr) < 400 and 'choose another name' in stderr


def test_wrong_calls_of_ours_keep_their_traceback():
    def main():
        model = build(type=Model)()
        model.train(mod=False)

    with pytest.raises(TypeError, match=r'train\(\) got an unexpected'):
        cli.run(main)


def test_missing_keys_of_ours_keep_their_traceback():
    def main():
        raise KeyError('mIoU is not in the results')

    with pytest.raises(KeyError, match='mIoU'):
        cli.run(main)


PRINTING = """
import logging, sys
from mmvitcompress.utils import cli
def main():
    if 'log' in sys.argv:
        logging.basicConfig(stream=sys.stdout, level=20)
        say = logging.getLogger().info
    else:
        say = print
    for i in range(99999):
        say('a line')
    open('/dev/null/finished')  # not to be reached
cli.run(main)
"""


def run_shell(command, *arguments, **env):
    return subprocess.run(
        [
            *('bash', '-o', 'pipefail', '-c', f'"$@" {command}', 'bash'),
            *(sys.executable, '-c', PRINTING, *arguments),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )


@pytest.mark.parametrize('how', ['print', 'log'])
@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_a_reader_that_has_seen_enough(how, unbuffered):
    """``tool | head`` is quiet, and tells that it did not end."""
    done = run_shell('| head -n 1', how, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (141, '')
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize('how', ['print', 'log'])
def test_a_full_disk_is_said_in_a_sentence(how):
    done = run_shell('> /dev/full', how)
    assert done.returncode == 1
    assert 'cannot be written: No space left on device' in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_other_pipes_that_break_are_bugs():
    def main():
        raise BrokenPipeError('of a worker')

    with pytest.raises(BrokenPipeError, match='of a worker'):
        cli.run(main)


def test_names_need_not_be_utf8():
    done = subprocess.run(
        [sys.executable, '-c', NAMES], capture_output=True, check=True
    )
    assert done.stdout == b'a\\udcff\n'


NAMES = r"""
from mmvitcompress.utils import cli
cli.run(lambda: print('a\udcff'))
"""


def test_figures_that_cannot_be_written_are_refused_at_once(tmp_path, capsys):
    parser = cli.parser('Some tool.')
    cli.add_json(parser)
    assert parser.parse_args([]).json is None
    file = str(tmp_path / 'new/figures.json')
    assert parser.parse_args(['--json', file]).json == file
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(['--json', str(tmp_path)])
    assert stop.value.code == 2
    assert 'cannot be written: it is a folder' in capsys.readouterr().err
