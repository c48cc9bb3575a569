"""Two methods compared by the tool, from training to the picture."""

import json
import subprocess

import pytest
from clone import Clone
from cuts import given, settings
from small_data import make_data
from warm import warm_python

pytestmark = pytest.mark.slow
DENSE, ATME = (
    f'configs/semfpn_{method}_vit_micro_digits.py'
    for method in ('dense', 'atme')
)


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    data, root = (tmp_path_factory.mktemp(name) for name in ('data', 'root'))
    make_data(data)
    return Clone(root, data)


def compare(clone, *words):
    cfg = given([str(clone.root / DENSE)])[0]
    cuts = settings(cfg) | {'model.backbone.checkpoint': None}
    del cuts['randomness.seed']
    pairs = [f'{key}={value}'.replace(' ', '') for key, value in cuts.items()]
    return subprocess.run(
        [
            *(warm_python(), 'tools/compare.py', ATME, '--baseline', DENSE),
            *('--repeats', '1', *words, '--cfg-options', *pairs),
        ],
        cwd=clone.root,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_from_training_to_the_picture(clone):
    words = ('--seeds', '3', '--json', 'all.json', '--out', 'all.png')
    first = compare(clone, *words)
    assert first.returncode == 0, first.stderr[-2000:]
    assert '[2/2] semfpn_atme_vit_micro_digits, seed 3: test' in first.stdout
    report = json.loads((clone.root / 'all.json').read_text())
    dense, atme = report['rows']
    assert report['metric'] == 'mIoU'
    assert dense['difference'] == 0 and dense['reduction'] == 0
    assert atme['macs'] < dense['macs'] and atme['backbone_ms'] > 0
    assert (clone.root / 'all.png').stat().st_size > 10_000
    again = compare(clone, *words)  # nothing is trained twice
    assert again.returncode == 0 and 'training' not in again.stdout


def test_bad_arguments_end_before_a_run(clone):
    done = compare(clone, '--seeds', '-1')
    assert done.returncode == 1 and 'got [-1]' in done.stderr


def test_a_table_goes_without_configs(clone):
    done = compare(clone, '--table', 'configs/tables/camvid.py')
    assert done.returncode == 1 and 'give no others' in done.stderr
