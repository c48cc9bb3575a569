"""tools/convert_medical.py."""

import json
import runpy
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[4]


@pytest.fixture
def tool(monkeypatch, capsys):
    """Runs the tool; returns its status, output and errors."""

    def run(*args):
        path = str(REPO / 'tools/convert_medical.py')
        monkeypatch.setattr(sys, 'argv', [path, *map(str, args)])
        status = 0
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


def test_the_tool(tool, acdc_npz, tmp_path):
    source, out = acdc_npz[0], tmp_path / 'out'
    status, stdout, stderr = tool('acdc', source, out)
    assert (status, stdout) == (1, '')
    assert stderr.count('\n') == 1 and 'train has 1 of 140' in stderr
    figures = tmp_path / 'figures.json'
    status, stdout, _ = tool(
        'acdc', source, out, '--partial', '--json', figures
    )
    assert status == 0
    assert '3/3 patient002_ED: 11 slices for test' in stdout
    assert json.loads(figures.read_text()) == dict(train=11, val=11, test=11)


def test_the_tool_explains_itself(tool):
    status, stdout, _ = tool('--help')
    assert status == 0
    for word in ('synapse', 'TrainDataset', 'nibabel', '--partial'):
        assert word in stdout


def test_the_tool_converts_polyps_quietly(tool, polyps, tmp_path):
    out = tmp_path / 'out'
    status, stdout, _ = tool('polyp', polyps, out, '--partial', '--quiet')
    assert status == 0 and stdout.count('\n') == 1
    assert '2 test/etis' in stdout
