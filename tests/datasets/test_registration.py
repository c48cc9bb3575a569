"""What ``import mmvitcompress.datasets`` does without mmseg or mmdet."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPO = Path(__file__).parents[2]
PATH = os.pathsep.join([str(REPO), str(REPO / 'tools')])
SCRIPT = """
import json, sys
for name in {hidden}:
    sys.modules[name] = None  # as if it were not installed
import dataset_converters.digits, mmvitcompress.datasets
from mmvitcompress.registry import DATASETS
print(json.dumps([sorted(DATASETS.module_dict), sorted(
    name for name in ('mmseg', 'mmdet') if sys.modules.get(name))]))
"""


def registered_without(*hidden):
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT.format(hidden=hidden)],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': PATH},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ('hidden', 'there', 'absent', 'loaded'),
    [
        (('mmseg',), 'DigitInstancesDataset', 'CamVidDataset', ['mmdet']),
        (('mmdet',), 'CamVidDataset', 'DigitInstancesDataset', ['mmseg']),
    ],
)
def test_one_library_is_enough(hidden, there, absent, loaded):
    names, libraries = registered_without(*hidden)
    assert there in names and absent not in names
    assert libraries == loaded


def test_neither_library_is_needed_to_make_digits():
    names, libraries = registered_without('mmseg', 'mmdet')
    assert not {'CamVidDataset', 'DigitInstancesDataset'} & set(names)
    assert libraries == []
