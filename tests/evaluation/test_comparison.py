"""Comparing methods: each step once, differences seed by seed."""

import json
from statistics import fmean, stdev

import pytest

from mmvitcompress.errors import ConfigError, RunError
from mmvitcompress.evaluation.comparison import (
    Cell,
    comparison_table,
    metric_of,
    summary,
)

# Stand-ins that leave what the tools leave, and count their calls.
TOOLS = {
    'train': """
work = Path(sys.argv[sys.argv.index('--work-dir') + 1])
work.mkdir(parents=True, exist_ok=True)
(work / 'last_checkpoint').write_text(str(work / 'iter_2.pth'))
""",
    'export_pruned': """
assert sys.argv[2].endswith('iter_2.pth'), sys.argv
Path(sys.argv[3]).write_text('weights')
costs = dict(dense=8e9, before=8e9, after=4e9)
out = dict(macs=costs, params=costs, reduction=0.5)
Path(sys.argv[sys.argv.index('--json') + 1]).write_text(json.dumps(out))
""",
    'test': """
assert Path(sys.argv[2]).read_text() == 'weights'
seed = int(sys.argv[-1].removeprefix('randomness.seed='))
out = dict(config=sys.argv[1], checkpoint=sys.argv[2], mIoU=50.0 + seed)
Path(sys.argv[sys.argv.index('--json') + 1]).write_text(json.dumps(out))
""",
}
HEAD = """
import json, sys
from pathlib import Path
with open(Path(__file__).parent / 'calls', 'a') as calls:
    calls.write(Path(__file__).stem + chr(10))
"""


@pytest.fixture
def tools(tmp_path):
    folder = tmp_path / 'tools'
    folder.mkdir()
    for name, body in TOOLS.items():
        (folder / f'{name}.py').write_text(HEAD + body)
    return folder


@pytest.fixture
def cell(tmp_path):
    config = tmp_path / 'dense.py'
    config.write_text("model = dict(type='X')\n")
    return Cell(str(config), 3, tmp_path / 'runs', ('a=1',))


def calls(tools):
    return (tools / 'calls').read_text().split()


def test_a_cell_is_trained_exported_and_tested_once(cell, tools):
    said = []
    result = cell.run(tools, said.append)
    assert result['metrics']['mIoU'] == 53.0
    assert result['macs']['after'] == 4e9 and result['reduction'] == 0.5
    assert said == ['training', 'exporting', 'testing']
    assert cell.run(tools, said.append) == result
    assert calls(tools) == ['train', 'export_pruned', 'test']


def test_an_interrupted_cell_goes_on_with_the_step_that_failed(cell, tools):
    whole = (tools / 'test.py').read_text()
    (tools / 'test.py').write_text(
        HEAD + "sys.exit('test.py: error: no such data; set data_root')"
    )
    with pytest.raises(
        RunError, match=r'test\.py of dense, seed 3.*data_root'
    ):
        cell.run(tools, print)
    (tools / 'test.py').write_text(whole)
    cell.run(tools, print)
    assert calls(tools) == ['train', 'export_pruned', 'test', 'test']


@pytest.mark.parametrize('change', ['config', 'options'])
def test_other_settings_are_refused(cell, tools, tmp_path, change):
    cell.run(tools, print)
    options = ('a=2',) if change == 'options' else cell.options
    if change == 'config':
        (tmp_path / 'dense.py').write_text("model = dict(type='Y')\n")
    other = Cell(cell.config, cell.seed, cell.root, options)
    with pytest.raises(ConfigError, match=r'other settings.*--work-dir'):
        other.run(tools, print)
    assert len(calls(tools)) == 3


def runs(values, macs):
    costs = dict(after=macs)
    return {
        seed: dict(
            metrics=dict(mIoU=value), macs=costs, params=costs, reduction=0.5
        )
        for seed, value in values.items()
    }


def test_differences_are_taken_seed_by_seed():
    results = dict(
        cait=runs({0: 49.0, 1: 59.5, 2: 54.0}, 4e9),
        dense=runs({0: 50.0, 1: 60.0, 2: 55.0}, 8e9),
    )
    dense, cait = summary(results, 'dense', 'mIoU')
    assert dense['name'] == 'dense' and dense['difference'] == 0
    assert cait['differences'] == {0: -1.0, 1: -0.5, 2: -1.0}
    assert cait['difference'] == pytest.approx(fmean([-1, -0.5, -1]))
    assert cait['difference_spread'] == pytest.approx(stdev([-1, -0.5, -1]))
    assert cait['spread'] == pytest.approx(stdev([49, 59.5, 54]))
    text = comparison_table([dense, cait], 'mIoU')
    assert '54.17 ± 5.25' in text and '-0.83 ± 0.29' in text
    assert '4.000 G' in text and '-50.0%' in text


def test_one_seed_has_no_spread():
    rows = summary(dict(dense=runs({4: 50.0}, 8e9)), 'dense', 'mIoU')
    assert rows[0]['spread'] is None
    assert '±' not in comparison_table(rows, 'mIoU')


def test_times_are_shown_as_speedups():
    rows = summary(
        dict(dense=runs({0: 50.0}, 8e9), cait=runs({0: 50.0}, 4e9)),
        *('dense', 'mIoU'),
    )
    for row, time in zip(rows, (30.0, 12.0)):
        row.update(
            {f'{p}_ms': time for p in ('backbone', 'encoder', 'overall')}
        )
    assert comparison_table(rows, 'mIoU').count('2.50x') == 3


def test_the_metric_is_the_one_that_all_have():
    known = [
        dict(metrics=dict(mIoU=1.0, aAcc=2.0)),
        dict(metrics=dict(aAcc=3, checkpoint='small.pth')),
    ]
    assert metric_of(known) == 'aAcc'
    with pytest.raises(ConfigError, match=r'mDice; choose one of aAcc$'):
        metric_of(known, 'mDice')


def test_numbers_go_into_files_that_json_reads(cell, tools):
    cell.run(tools, print)
    settings = json.loads((cell.folder / 'settings.json').read_text())
    assert settings['config'] == cell.config
