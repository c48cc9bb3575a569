"""tools/export.py: several runtimes, a baseline, what it measures."""

import json
import runpy
import sys

import command_lines
import pytest
import torch

from mmvitcompress.deploy.targets import TARGETS

pytestmark = pytest.mark.slow

SHAPE = ['--shape', 32, 40, '--dynamic', 'none', '--repeats', 1]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('files')
    command_lines.make_files(folder)
    return folder


@pytest.fixture
def tool(root, monkeypatch, capsys):
    """Runs tools/export.py; returns status, output and errors."""

    def run(*words, config='config.py', name='export'):
        line = [f'{name}.py', root / config, *words, *SHAPE]
        monkeypatch.setattr(sys, 'argv', [*map(str, line)])
        path = str(command_lines.ROOT / f'tools/{name}.py')
        status = 0
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


def test_models_take_turns_in_all_runtimes(tool, root, tmp_path):
    targets = [name for name in ('torch', 'onnx') if all_there(TARGETS[name])]
    dense = tmp_path / 'dense.py'
    dense.write_text(
        f"_base_ = '{root / 'config.py'}'\n"
        'model = dict(backbone=dict(token_merging=None, '
        'patch_slimming=None))\n'
    )
    out, figures = tmp_path / 'net', tmp_path / 'net.json'
    measured = '--clock', 'cpu', '--memory', '--images', root / 'images'
    status, printed, _ = tool(
        *(out, '--target', *targets, '--baseline', dense, *measured),
        *('--checkpoint', root / 'run.pth', '--bf16', '--check-images', 2),
        *('--json', figures),
    )
    assert status == 0
    report = json.loads(figures.read_text())
    files = {name: str(out) + TARGETS[name].suffix for name in targets}
    assert {k: v for k, v in report['files'].items() if k in files} == files
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {
        'dense.py',
        'net.json',
        *(f'net{TARGETS[t].suffix}' for t in targets),
    }
    assert report['macs_ratio'] > 1.1
    rows = report['runtimes']
    assert {'pytorch', 'pytorch bf16', 'torch', 'torch bf16'} <= {*rows}
    assert {*rows} == {*report['baseline']}
    for name, row in rows.items():
        assert row['images_per_s'] == pytest.approx(1000 / row['ms']['median'])
        assert f'| model | {name} |' in printed
    assert rows['torch']['agreement'] == 1
    assert rows['torch']['metrics'] == rows['pytorch']['metrics']
    peak = rows['torch']['peak_mb']
    assert peak is None or peak > 0.1
    assert max(report['relative_error'].values()) < 1e-4
    loaded = torch.export.load(files['torch']).module()
    (logits,) = loaded(torch.randn(1, 3, 32, 40))
    assert logits.shape[1] == 3


def all_there(target):
    return all(
        __import__('importlib').util.find_spec(p) for p in target.packages
    )


@pytest.mark.parametrize(
    'words, said',
    [
        (['x.onnx', '--target', 'torch'], 'out must end in .pt2'),
        (['x.pt2', '--target', 'torch', 'onnx'], 'without suffix'),
        (['x', '--target', 'torch', '--int8'], 'torch has no int8 here'),
        (
            ['x', '--target', 'torch', '--baseline-checkpoint', 'y.pth'],
            'needs --baseline',
        ),
        (
            [
                'x',
                '--target',
                'torch',
                '--part',
                'backbone',
                '--check-images',
                '1',
            ],
            "of part 'encoder' or 'all'",
        ),
    ],
)
def test_what_cannot_be_is_refused(tool, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    status, _, errors = tool(*words)
    assert status == 1 and said in errors
