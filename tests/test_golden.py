"""Models are what they were, and compute what they did.

Kept are state dicts, archs, MACs and outputs of small models with given
weights. Where one of these changes on purpose, tests/golden/make.py keeps the
new ones.
"""

import copy
from functools import cache

import golden
import golden_runs
import golden_tools
import pytest
import torch
from golden_cases import CASES

NAMES = [(group, name) for group, cases in CASES.items() for name in cases]
kept = cache(golden.read)


def report(group, name, lines):
    return f'{group}, {name}:\n' + '\n'.join(lines)


@pytest.mark.parametrize(
    'group, name', NAMES, ids=[': '.join(each) for each in NAMES]
)
def test_a_model_is_as_it_was(group, name):
    case = CASES[group][name]
    before, now = kept(group)[name], golden.measured(case)

    lines = golden.differences(before, now, case.single)

    assert not lines, report(group, name, lines)


@pytest.mark.parametrize('name', golden_tools.NAMES)
def test_the_tool_counts_as_it_did(name):
    assert golden_tools.count(name) == golden_tools.read_counts()[name]


def test_all_that_is_kept_is_compared():
    assert [(g, n) for g in CASES for n in kept(g)] == NAMES
    assert list(golden_tools.read_counts()) == golden_tools.NAMES


# -- the comparison itself --------------------------------------------------


@pytest.fixture(scope='module')
def before():
    return kept('segmentors')['semfpn, micro, atme']


@pytest.fixture
def now(before):
    return copy.deepcopy(before)


def test_nothing_differs_from_itself(before, now):
    assert golden.differences(before, now) == []


@pytest.mark.parametrize(
    'weight',
    ['backbone.blocks.0.attn.qkv.weight', 'neck.1.fpn_convs.3.conv.bias'],
)
def test_a_weight_that_moves_a_little_is_noticed(weight, monkeypatch, before):
    case = CASES['segmentors']['semfpn, micro, atme']
    fill = golden_runs.fill

    def nudged(model):
        with torch.no_grad():
            fill(model).get_parameter(weight).view(-1)[0] += 1e-6
        return model

    monkeypatch.setattr(golden_runs, 'fill', nudged)
    lines = golden.differences(before, golden.measured(case))

    assert any(line.startswith('outputs: ') for line in lines)


def test_differences_are_named(before, now):
    names = list(before['state'])
    lost, reshaped = names[0], names[1]
    del now['state'][lost]
    now['state'] |= {reshaped: '1x2', 'extra': '3'}
    now['macs']['fvcore'] = [1, 2]
    now['arch']['depth'] = 9
    now['outputs']['output'][0] = [1]
    now['outputs']['maps.0'][3] += 1

    shape = before['outputs']['output'][0]
    lines = golden.differences(before, now)
    (moved,) = (line for line in lines if 'projection' in line)
    lines.remove(moved)

    assert moved.startswith('outputs: projection of maps.0 was ')
    assert lines == [
        f'state: {lost} is lost',
        'state: extra is new',
        f'state: {reshaped} was {before["state"][reshaped]}, and is 1x2',
        'arch: depth was 8, and is 9',
        f'macs: fvcore was {before["macs"]["fvcore"]}, and is [1, 2]',
        f'outputs: output was of shape {shape}, and is [1]',
    ]


def test_another_order_is_noticed(before, now):
    first, *others = now['state'].items()
    now['state'] = dict([*others, first])

    (line,) = golden.differences(before, now)

    assert line == f'state: another order, from {first[0]} on'


def test_a_number_that_is_none_is_noticed(before, now):
    now['outputs']['output'][1] = float('nan')

    (line,) = golden.differences(before, now)

    assert line.startswith('outputs: mean of output was ')
