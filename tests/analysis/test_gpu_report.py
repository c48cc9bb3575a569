"""The report of a card, as far as a CPU can tell."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from mmvitcompress.analysis.gpu.budget import Skipped, Task, measure_within
from mmvitcompress.analysis.gpu.modes import arithmetic, transform_of
from mmvitcompress.analysis.gpu.order import tasks
from mmvitcompress.analysis.gpu.plan import (
    ReportPlan,
    load_shipped,
    quick_plan,
)
from mmvitcompress.analysis.gpu.tables import DRAW
from mmvitcompress.errors import ConfigError

TOOL = Path(__file__).parents[2] / 'tools' / 'gpu_report.py'
CPU = torch.device('cpu')


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, 'argv', ['gpu_report.py', *map(str, words)])
    runpy.run_path(str(TOOL), run_name='__main__')


@pytest.mark.slow
def test_everything_but_the_card(monkeypatch, tmp_path, capsys):
    quick = '--device', 'cpu', '--quick', '--minutes', 120
    run(monkeypatch, *quick, '--out', tmp_path)
    report = json.loads((tmp_path / 'report.json').read_text())
    text = (tmp_path / 'report.md').read_text()
    assert text in capsys.readouterr().out
    assert {*report['sections']} == {*DRAW}
    # all that is left out is what a CPU has not
    assert {each['why'] for each in report['skipped']} == {
        'CUDA graphs need a CUDA device'
    }
    found = report['sections']
    for model in found['numerics']['Semantic FPN'].values():
        assert model['CPU'] == pytest.approx(model['float32'], abs=1e-5)
        assert 0 < model['CPU'] < 1e-5 < model['bf16'] < 0.1
    two = found['two processes']['Semantic FPN']
    assert two['backend'] == 'gloo' and two['relative_error'] < 1e-5
    row = found['backbone']['float32, eager, batch 2']
    assert {*row} == {'dense', 'cait', 'cait, optimised'}
    assert row['dense']['backbone']['gain'] == 1
    assert row['cait']['backbone']['macs_ratio'] > 1
    step = found['training']['Semantic FPN']['cait']
    assert step['peak_memory_mb'] > 1 and step['ms']['median'] > 0
    assert '| float32, eager, batch 2 | cait |' in text


def test_what_does_not_fit_is_said():
    now = [0.0]

    def working(seconds):
        def measure():
            now[0] += seconds
            return seconds

        return measure

    def refusing():
        raise ConfigError('there is one card')

    def too_large():
        raise torch.OutOfMemoryError('1 GiB')

    made = [
        Task('a', 'first', 30, working(50)),
        Task('a', 'large', 30, working(30)),
        Task('a', 'small', 5, working(5)),
        Task('b', 'two', 1, refusing),
        Task('b', 'wide', 1, too_large),
    ]
    found, skipped = measure_within(made, 1, lambda: now[0], lambda line: None)
    assert found == {'a': {'first': 50, 'small': 5}}
    assert skipped == [
        Skipped('a', 'large', 'takes about 30 s, of which 10 s were left'),
        Skipped('b', 'two', 'there is one card'),
        Skipped('b', 'wide', 'needs more memory than the device has'),
    ]


def test_a_failure_loses_nothing_and_is_told_from_what_was_foreseen():
    def broken():
        raise RuntimeError('stream is capturing\nand so on')

    made = [Task('a', 'good', 0, int), Task('a', 'bad', 0, broken)]
    found, skipped = measure_within([*made, made[0]], 1, say=lambda line: None)
    assert found == {'a': {'good': 0}}
    why = 'RuntimeError: stream is capturing'
    assert skipped == [Skipped('a', 'bad', why, failed=True)]


def test_ten_minutes_hold_the_most_telling():
    plan = ReportPlan(torch.device('cuda'))
    made = list(tasks(plan))
    assert {task.section for task in made} == {*DRAW}
    assert len({(t.section, t.row) for t in made}) == len(made)
    seconds, early = 0, set()
    for task in made:
        seconds += task.seconds
        early |= {task.section} if seconds <= 600 else set()
    assert early == {*DRAW}
    rows = ' '.join(task.row for task in made)
    for words in ('CUDA graphs', 'fp16', 'tf32', 'batch 1', 'batch 8'):
        assert words in rows


@pytest.mark.parametrize('plan', [ReportPlan(CPU), quick_plan(CPU)])
def test_configs_are_shipped(plan):
    names = [*plan.detectors.values(), *plan.peers.values()]
    for models in plan.heads.values():
        names += models.values()
        assert 'dense' in models
    for name in names:
        assert (TOOL.parents[1] / f'configs/{name}.py').is_file(), name
    with pytest.raises(ConfigError, match='is not installed'):
        load_shipped('no_such_config')


def test_arithmetic_is_put_back():
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    for name, kind in (('tf32', None), ('bf16', torch.bfloat16)):
        with arithmetic(name) as dtype:
            assert dtype is kind and matmul.allow_tf32 == (name == 'tf32')
    assert matmul.allow_tf32 == before
    with pytest.raises(ConfigError, match='need a CUDA device'):
        transform_of('CUDA graphs', CPU, 'inductor')


def test_no_card_is_a_sentence(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as status:
        run(monkeypatch, '--device', 'cpu', '--out', tmp_path / 'none')
    assert status.value.code == 1
    assert 'add --quick' in capsys.readouterr().err
    assert not (tmp_path / 'none').exists()
