"""Bad label maps stop training and testing, and are named."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

SHORT = """
train_cfg.update(max_iters=1, val_interval=1)
for loader in (train_dataloader, val_dataloader):
    loader['dataset'].update(
        type='mmvitcompress.FolderDataset', data_root={!r}
    )
loader = None
"""


@pytest.fixture
def own(data, config, tmp_path):
    """A copy of the data that may be spoilt, and a config of it."""
    root = tmp_path / 'own'
    shutil.copytree(data, root)
    return root, config(SHORT.format(str(root)))


def spoil(root, label):
    """Write one label over the second validation map; returns the old."""
    path = root / 'annotations/validation/1.png'
    old = np.asarray(Image.open(path))
    Image.fromarray(np.full_like(old, label)).save(path)
    return old


def test_validation_maps_are_checked_before_training(own, tool, tmp_path):
    root, path = own
    spoil(root, 77)
    train = 'train', path, '--work-dir', tmp_path / 'w'
    status, stderr = tool(*train)
    line = stderr.strip().splitlines()[-1]
    assert status == 1 and '1 of 2 label maps cannot be used' in line
    assert 'validation/1.png must hold labels 0..2 or 255, but got 77' in line
    assert not list((tmp_path / 'w').glob('*.pth'))
    # without the check all is well until the map is loaded
    assert tool(*train, '--no-check', '--no-validate')[0] == 0
    status, stderr = tool(*train, '--no-check')
    assert status == 1 and 'validation/1.png must hold' in stderr


@pytest.mark.parametrize('workers', [0, 1])
def test_no_label_without_a_class_is_counted(own, tool, tmp_path, workers):
    root, path = own
    assert tool('train', path, '--work-dir', tmp_path / 'w')[0] == 0
    spoil(root, 77)
    status, stderr = tool(
        *('test', path, tmp_path / 'w/iter_1.pth'),
        *('--work-dir', tmp_path / 't', '--json', tmp_path / 'f.json'),
        *('--cfg-options', f'test_dataloader.num_workers={workers}'),
    )
    line = stderr.strip().splitlines()[-1]
    assert status == 1 and 'Traceback' not in stderr
    assert 'validation/1.png must hold labels 0..2 or 255, but got 77' in line
    assert not (tmp_path / 'f.json').exists()


def test_what_was_read_is_remembered_from_run_to_run(own, tool, tmp_path):
    root, path = own
    for _ in range(2):
        status, stderr = tool('train', path, '--work-dir', tmp_path / 'w')
        assert status == 0, stderr
    assert 'checking label maps' not in stderr
    os.utime(root / 'annotations/training/0.png', ns=(1, 1))
    assert 'checking' in tool('train', path, '--work-dir', tmp_path / 'w')[1]


@pytest.mark.slow
def test_every_process_stops(own, helpers, tmp_path):
    root, path = own
    spoil(root, 77)
    done = helpers.execute(
        [
            *(helpers.root / 'tools' / 'dist_train.sh', path, 2),
            *('--work-dir', tmp_path / 'w'),
        ],
        PORT=str(helpers.free_port()),
    )
    assert done.returncode != 0
    said = 'train.py: error: FolderDataset: 1 of 2 label maps cannot be used'
    assert 1 <= done.stderr.count(said) <= 2  # torchrun ends the slower one
    assert 'in check_run' not in done.stderr  # no traceback
