"""One config for a table of methods: what its rows become."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config
from token_methods import FOR_VITS

from mmvitcompress.analysis.candidates import write_rows
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens import METHODS

TABLES = sorted((Path(__file__).parents[2] / 'configs/tables').glob('*.py'))
BASELINE = """
model = dict(
    type='ImageClassifier',
    backbone=dict(type='CompressedViT', arch='deit_tiny', img_size=64),
    num_classes=3,
)
lr = 1.0
"""


@pytest.fixture
def table(tmp_path):
    (tmp_path / 'dense.py').write_text(BASELINE)

    def write(rows, **kwargs):
        content = dict(baseline='dense.py', rows=rows) | kwargs
        path = tmp_path / 'table.py'
        path.write_text('\n'.join(f'{k} = {v!r}' for k, v in content.items()))
        return str(path)

    return write


def backbones(paths):
    return {p.stem: Config.fromfile(p).model.backbone for p in paths}


def test_rows_change_the_baseline_alone(table, tmp_path):
    merging = 'model.backbone.token_merging'
    rows = dict(a={merging: dict(layers=(5, 8))}, b=dict(lr=2.0))
    path = table(rows, common={'model.backbone.drop_path_rate': 0.1})
    dense, a, b = write_rows(path, tmp_path / 'rows')
    assert [p.stem for p in (dense, a, b)] == ['dense', 'a', 'b']
    found = backbones((dense, a, b))
    assert all(each.drop_path_rate == 0.1 for each in found.values())
    assert found['a'].token_merging == dict(layers=(5, 8))
    assert 'token_merging' not in found['dense'] | found['b']
    assert Config.fromfile(b).lr == 2 and Config.fromfile(a).lr == 1


@pytest.mark.parametrize('method', FOR_VITS)
def test_a_method_is_planned_for_the_target(table, tmp_path, method):
    path = table(dict(row=dict(method=method)), target=0.4)
    _, row = write_rows(path, tmp_path / 'rows')
    arch = get_arch('deit_tiny')
    spec = METHODS[method](**backbones([row])['row'][method])
    saved = 1 - arch.with_reductions(spec).macs(64) / arch.macs(64)
    assert saved == pytest.approx(0.4, abs=0.06)  # 17 tokens come in steps


def test_what_a_row_says_of_its_method_goes_first(table, tmp_path):
    row = dict(method='token_evolution', target=0.3)
    row['model.backbone.token_evolution.stages'] = (5, 9)
    _, path = write_rows(table(dict(row=row)), tmp_path / 'rows')
    assert backbones([path])['row'].token_evolution.stages == (5, 9)


def test_rows_can_be_chosen(table, tmp_path):
    path = table(dict(a={}, b={}, c={}))
    found = write_rows(path, tmp_path / 'rows', ['c', 'a', 'c'])
    assert [p.stem for p in found] == ['dense', 'c', 'a']


def test_names_may_be_numbers(table, tmp_path):
    path = table({5: {}, 'a': {}})
    found = write_rows(path, tmp_path / 'rows', ['5'])
    assert [p.stem for p in found] == ['dense', '5']
    with pytest.raises(ConfigError, match='no row 6; choose from 5, a'):
        write_rows(path, tmp_path / 'rows', ['6'])


@pytest.mark.parametrize(
    ('rows', 'more', 'message'),
    [
        (3, {}, 'must be a table'),
        (dict(a={}), dict(baseline=3), 'must be a table'),
        (dict(a=3), {}, 'row a: what changes must be a dict.* got 3'),
        (dict(a={}), dict(common=3), 'row dense: what changes'),
        ({'a/b': {}}, {}, "got 'a/b'"),
        ({'dense': {}}, {}, "got 'dense'"),
        (dict(a=dict(method='token_rates')), {}, 'row a.*needs a target'),
        (
            dict(a=dict(method='nothing')),
            dict(target=0.4),
            'row a.*method must be one of',
        ),
        (
            dict(a=dict(method='token_rates', target=1.2)),
            {},
            'row a.*target',
        ),
        ({'a': {'model.backbone': 3}}, {}, 'row a'),
    ],
)
def test_wrong_tables_say_so(table, tmp_path, rows, more, message):
    path = table(rows, **more)
    with pytest.raises(ConfigError, match=re.compile(message, re.DOTALL)):
        write_rows(path, tmp_path / 'rows')


def test_an_unknown_row_says_which_there_are(table, tmp_path):
    with pytest.raises(ConfigError, match=r'no row c; choose from a, b'):
        write_rows(table(dict(a={}, b={})), tmp_path / 'rows', ['c'])


@pytest.mark.parametrize('path', TABLES, ids=lambda path: path.stem)
def test_rows_that_save_tokens_meet_their_table(path, tmp_path):
    table, baseline = Config.fromfile(path), None
    for row in write_rows(str(path), tmp_path):
        backbone = Config.fromfile(row).model.backbone
        specs = [
            METHODS[key](**backbone[key]) for key in METHODS if key in backbone
        ]
        arch = get_arch(backbone.arch)
        size = backbone.get('img_size', arch.img_size)
        arch = arch.replace(img_size=size)
        saved = 1 - arch.with_reductions(*specs).macs() / arch.macs()
        if 'target' not in table:  # one recipe: all rows save as its baseline
            baseline = baseline or specs
            assert specs == baseline
        elif specs and not backbone.get('compactors'):
            # merges of tokens by number, and of 2x2, come in steps
            steps = 'ToMe' in row.stem or row.stem == 'symmetric'
            assert abs(saved - table.target) < (0.08 if steps else 0.02)
