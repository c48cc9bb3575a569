"""A fresh clone in miniature, and what happens when one types into it."""

import contextlib
import itertools
import os
import random
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import timm
import torch
from cuts import cut, given, last_checkpoint, settings
from documents import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from runs import forget_runs
from warm import warm_python

from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.checkpoints.heads import to_timm_head

# where MMEngine, and where its maintained fork, looks for yapf's function
FORMATTERS = ('mmengine.config.config', 'yapf.yapflib.yapf_api')
create_model, read_file = timm.create_model, Config.fromfile


def undownloaded(name, pretrained=False, **kwargs):
    """timm's model of a name, with random weights."""
    return create_model(name, pretrained=False, **kwargs)


def unformatted(code, **kwargs):
    """What yapf returns of code that need not be changed."""
    return code, False


def read_cut(path, *args, **kwargs):
    """A config, cut as it is for the tools."""
    cfg = read_file(path, *args, **kwargs)
    cfg.merge_from_dict(settings(cfg))
    return cfg


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class Clone:
    """A folder with the repository's tools and configs, and small data.

    Args:
        root: An empty folder.
        data: What ``make_data`` has filled.
    """

    def __init__(self, root, data):
        self.root, self.environment = root, {}
        for source, folder in (
            *(
                (ROOT / name, '.')
                for name in ('demo', 'mmvitcompress', 'tools')
            ),
            *((path, 'configs') for path in (ROOT / 'configs').iterdir()),
            *((path, 'data') for path in (data / 'data').iterdir()),
            *((path, '.') for path in data.iterdir() if path.name != 'data'),
        ):
            (root / folder).mkdir(exist_ok=True)
            (root / folder / source.name).symlink_to(source)

    @contextlib.contextmanager
    def entered(self):
        """As in a new process in this folder, off line."""
        forget_runs()
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        with (
            mock.patch.dict(os.environ, self.environment),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.chdir(self.root)
            for name in [n for n in os.environ if n.endswith('_ROOT')]:
                patch.delenv(name)  # data lie where they do by default
            patch.setattr(timm, 'create_model', undownloaded)
            # configs are formatted eight times a run, for MMEngine's logs
            for module in FORMATTERS:
                name = f'{module}.FormatCode'
                patch.setattr(name, unformatted, raising=False)
            yield
        forget_runs()

    def tool(self, path, *words):
        """Run a tool of the clone in this process, cut short."""
        name, words = Path(path).stem, list(map(str, words))
        with self.entered():
            short = cut(name, words)
            with mock.patch.object(sys, 'argv', [path, *short]):
                try:
                    runpy.run_path(path, run_name='__main__')
                except SystemExit as stop:
                    assert not stop.code, f'{path} ended with {stop.code}'
            for flag, file in itertools.pairwise(words):
                if flag in ('--json', '--out'):
                    assert Path(file).exists(), f'{path} wrote no {file}'
            if name == 'train':
                self._name_checkpoint(words)

    def script(self, path, *words):
        """Run tools/dist_….sh in one process of its own, cut short."""
        tool = Path(path).stem.removeprefix('dist_')
        at = {'train': 1, 'test': 2}[tool]  # where the number of processes is
        with self.entered():
            words = [*words[:at], *words[at + 1 :]]
            short = cut(tool, words)
            short.insert(at, '1')
            environment = dict(PYTHON=warm_python(), PORT=str(free_port()))
            subprocess.run(
                ['bash', path, *short],
                check=True,
                timeout=120,
                env={**os.environ, **environment},
            )
            if tool == 'train':
                self._name_checkpoint(words)

    def demo(self):
        """Run tools/demo.py, its tools in this process as well."""

        def run(command, **kwargs):
            if command[0] != sys.executable:  # MMEngine asks for versions
                return start(command, **kwargs)
            self.tool(*command[1:])
            return mock.Mock(stdout=[], returncode=0, poll=lambda: 0)

        start = subprocess.Popen
        with (
            mock.patch.object(subprocess, 'Popen', run),
            mock.patch('signal.signal'),
            mock.patch('dataset_converters.digits.make_digits'),
        ):
            self.tool('tools/demo.py')

    def notebook(self, code, names):
        """Run a block of Python, its configs cut short.

        Args:
            code: The block.
            names: What it may use; what it defines is added.
        """
        code = code.replace("'cuda:0'", "'cpu'")
        with (
            self.entered(),
            mock.patch.object(Config, 'fromfile', staticmethod(read_cut)),
        ):
            exec(compile(code, 'block of Python', 'exec'), names)

    def _name_checkpoint(self, words):
        """Link what a short run wrote under the name of the whole run's."""
        cfg, folder = given(words)
        whole = folder / last_checkpoint(cfg)
        written = Path((folder / 'last_checkpoint').read_text())
        if not whole.exists():
            whole.symlink_to(written.resolve())

    def stand_in(self, path, config, exported=False):
        """Write a checkpoint with random weights.

        Args:
            path: Where.
            config: Of a run that would have written it.
            exported: Whether it is one of tools/export_pruned.py.
        """
        target = self.root / path
        with self.entered():
            cfg = read_cut(f'configs/{config}')
            init_default_scope(cfg.default_scope)
            cfg.model.pop('distillation', None)
            cfg.model.backbone.checkpoint = None
            if exported:
                cfg.model.backbone.pop('compactors', None)
            model = MODELS.build(cfg.model)
        arch, state = model.backbone.arch, model.state_dict()
        if not exported:
            target.parent.mkdir(parents=True, exist_ok=True)
            content = dict(state_dict=state, meta=dict(arch=arch.to_dict()))
            torch.save(content, target)
            return
        state = {
            key.removeprefix('backbone.'): value
            for key, value in state.items()
            if key.startswith(('backbone.', 'head.'))
        }
        write_checkpoint(target, to_timm_head(state), arch)
