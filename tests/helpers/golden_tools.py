"""What tools/get_flops.py counts in configs, by its command line."""

import json
import runpy
import sys
import tempfile
from pathlib import Path
from unittest import mock

from golden import FOLDER
from golden_runs import CONVENTIONS
from mmengine.registry import DefaultScope

ROOT = Path(__file__).parents[2]
FILE = FOLDER / 'tools.json'
PARTS = ('parts', 'encoder', 'total', 'training_only')
CONFIGS = {
    'imagenet/atme_vit_micro_digits': 32,
    'imagenet/lifeslim_vit_micro_digits': 32,
    'semfpn_atme_vit_micro_digits': 64,
    'upernet_atme_vit_micro_nuclei': 64,
    'mask2former_atme_vit_micro_camvid': 64,
    'mask_rcnn_atme_vit_micro_nuclei': 64,
    'cascade_atme_vit_micro_digits': 64,
    'imagenet/atme_swin_t_in1k': 64,
}
NAMES = [f'{path}, {name}' for path in CONFIGS for name in CONVENTIONS]


def count(name):
    """MACs and parameters of one of ``NAMES``, by part."""
    path, convention = name.split(', ')
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'figures.json'
        words = [
            'get_flops.py',
            ROOT / 'configs' / f'{path}.py',
            *('--shape', CONFIGS[path], '--convention', convention),
            *('--json', file),
        ]
        DefaultScope._instance_dict.clear()
        with mock.patch.object(sys, 'argv', list(map(str, words))):
            try:
                runpy.run_path(
                    str(ROOT / 'tools/get_flops.py'), run_name='__main__'
                )
            except SystemExit as stop:
                assert not stop.code, f'get_flops.py ended with {stop.code}'
        figures = json.loads(file.read_text())
    return {part: figures[part] for part in PARTS}


def counted():
    return {name: count(name) for name in NAMES}


def read_counts():
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def write_counts(content):
    lines = ',\n'.join(
        f' {json.dumps(name)}: {json.dumps(figures)}'
        for name, figures in content.items()
    )
    FILE.write_text(f'{{\n{lines}\n}}\n')
