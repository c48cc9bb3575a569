"""Saving atomically, finding what to resume from, loading strictly."""

import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.fileio import get_file_backend
from torch import nn

from mmvitcompress.engine.hooks.atomic_checkpoint import (
    AtomicCheckpointHook,
    find_resumable,
)
from mmvitcompress.engine.hooks.loading import StrictLoadHook
from mmvitcompress.errors import CheckpointError

pytestmark = pytest.mark.slow


def save(path, age=0):
    """A checkpoint written ``age`` seconds ago."""
    torch.save({'state_dict': {'weight': torch.zeros(2)}}, path)
    os.utime(path, (1e9 - age, 1e9 - age))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def test_backend_writes_atomically(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, 'fsync', synced.append)
    backend = get_file_backend(backend_args={'backend': 'atomic_local'})
    backend.put(b'bytes', tmp_path / 'a')
    backend.put_text('täxt', tmp_path / 'b')
    assert len(synced) == 2
    assert backend.get(tmp_path / 'a') == b'bytes'
    assert backend.get_text(tmp_path / 'b') == 'täxt'


class Runner:
    """As much of a runner as saving needs; notes what exists when."""

    def __init__(self, work_dir):
        self.work_dir = str(work_dir)
        self.folder = work_dir
        self.calls = []
        self.when_saving = []
        info = {}
        self.message_hub = SimpleNamespace(
            runtime_info=info, update_info=info.__setitem__
        )
        self.logger = SimpleNamespace(info=lambda line: None)

    def call_hook(self, name):
        self.calls.append(name)

    def save_checkpoint(self, folder, name, *args, backend_args, **kwargs):
        self.calls.append(name)
        names = {path.name for path in self.folder.glob('*.pth')}
        self.when_saving.append(names)
        get_file_backend(backend_args=backend_args).put(
            name.encode(), self.folder / name
        )


def test_outdated_checkpoints_go_last(tmp_path):
    runner = Runner(tmp_path)
    hook = AtomicCheckpointHook(by_epoch=False, max_keep_ckpts=2)
    hook.before_train(runner)
    for step in (4, 8, 8, 12, 16):
        hook._save_checkpoint_with_step(runner, step, {})
        pointer = (tmp_path / 'last_checkpoint').read_text()
        assert pointer == str(tmp_path / f'iter_{step}.pth')
    # what there was to resume from while each was being written
    assert runner.when_saving == [
        set(),
        {'iter_4.pth'},
        {'iter_4.pth', 'iter_8.pth'},
        {'iter_4.pth', 'iter_8.pth'},
        {'iter_8.pth', 'iter_12.pth'},
    ]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {'iter_12.pth', 'iter_16.pth', 'last_checkpoint'}
    assert runner.message_hub.runtime_info['keep_ckpt_ids'] == [12, 16]
    assert runner.calls[:2] == ['before_save_on_all_ranks', 'iter_4.pth']


def test_nothing_to_resume_from(tmp_path):
    assert find_resumable(tmp_path) is None
    assert find_resumable(tmp_path / 'missing') is None
    save(tmp_path / 'best_mIoU_iter_8.pth')  # has no optimizer
    assert find_resumable(tmp_path) is None


def test_the_pointer_decides(tmp_path):
    for step in (4, 8):
        save(tmp_path / f'iter_{step}.pth')
    pointer = tmp_path / 'last_checkpoint'
    pointer.write_text(str(tmp_path / 'iter_4.pth') + '\n')
    assert find_resumable(tmp_path).path == str(tmp_path / 'iter_4.pth')


def test_a_moved_folder_is_resumed_from(tmp_path):
    save(tmp_path / 'iter_4.pth')
    (tmp_path / 'last_checkpoint').write_text('/was/once/here/iter_4.pth')
    assert find_resumable(tmp_path).path == str(tmp_path / 'iter_4.pth')


def test_without_pointer_the_newest_counts(tmp_path):
    save(tmp_path / 'iter_12.pth', age=9)
    save(tmp_path / 'iter_8.pth', age=1)
    assert find_resumable(tmp_path).path == str(tmp_path / 'iter_8.pth')


def test_a_truncated_checkpoint_gives_way_to_the_one_before(tmp_path):
    save(tmp_path / 'epoch_2.pth', age=5)
    save(tmp_path / 'epoch_3.pth', age=4)
    save(tmp_path / 'epoch_9.pth', age=0)  # of an older run, though touched
    truncate(tmp_path / 'epoch_3.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    assert find_resumable(tmp_path).path == str(tmp_path / 'epoch_2.pth')
    truncate(tmp_path / 'epoch_2.pth')
    with pytest.raises(CheckpointError, match='none of the checkpoints'):
        find_resumable(tmp_path)


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'iter_4\n',
        b'<!DOCTYPE html>',
        bytes(range(256)),
        b'PK\3\4',
        b'\0' * 99,
    ],
)
@pytest.mark.parametrize('name', ['iter_{}.pth', 'epoch_{}.pth', 'a-{}.pth'])
def test_damage_of_any_kind_hides_nothing(tmp_path, content, name):
    # MMEngine's pointer names other files and other folders, too
    folder = tmp_path if 'iter' in name else tmp_path / 'elsewhere'
    folder.mkdir(exist_ok=True)
    save(folder / name.format(4), age=5)
    save(folder / 'deit_3.pth')  # of another kind
    (folder / name.format(8)).write_bytes(content)
    pointer = tmp_path / 'last_checkpoint'
    pointer.write_text(str(folder / name.format(8)))
    assert find_resumable(tmp_path).path == str(folder / name.format(4))


@pytest.mark.parametrize('content', [b'', b'\xff\xfe', b'\0' * 20, b'x/y'])
def test_a_damaged_pointer_hides_nothing(tmp_path, content):
    save(tmp_path / 'iter_4.pth')
    (tmp_path / 'last_checkpoint').write_bytes(content)
    assert find_resumable(tmp_path).path == str(tmp_path / 'iter_4.pth')


def check(model, checkpoint, **kwargs):
    runner = SimpleNamespace(model=model, _load_from='some.pth')
    StrictLoadHook(**kwargs).after_load_checkpoint(runner, checkpoint)


def test_a_fitting_checkpoint_is_accepted():
    model, other = nn.Linear(2, 3), nn.Linear(2, 3)
    check(model, {'state_dict': other.state_dict()})
    check(model, other.state_dict())
    parallel = {f'module.{k}': v for k, v in other.state_dict().items()}
    check(model, {'state_dict': parallel})


def test_mismatches_are_named():
    model = nn.Linear(2, 3)
    state = {'weight': torch.zeros(3, 2), 'extra': torch.zeros(1)}
    with pytest.raises(
        CheckpointError,
        match=r"'some.pth' is of another .* lacks bias; it has unexpected ex",
    ):
        check(model, {'state_dict': state})
    state = {'weight': torch.zeros(4, 2), 'bias': torch.zeros(3)}
    with pytest.raises(
        CheckpointError, match=r'weight is \(4, 2\), .* needs \(3, 2\)'
    ):
        check(model, {'state_dict': state})


def test_long_lists_of_mismatches_are_cut():
    model = nn.Sequential(*[nn.Linear(1, 1) for _ in range(4)])
    with pytest.raises(
        CheckpointError,
        match=r'it lacks 0\.weight, 0\.bias, 1\.weight and 5 more;',
    ):
        check(model, {'state_dict': {}})


def test_training_may_start_from_part_of_the_weights():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    state = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5)).state_dict()
    check(model, {'state_dict': state}, whole=False)
    with pytest.raises(CheckpointError, match='is of another model'):
        check(model, {'state_dict': state}, whole=True)
    foreign = {f'backbone.{key}': value for key, value in state.items()}
    with pytest.raises(CheckpointError, match=r'no tensor of .*backbone\.0'):
        check(model, {'state_dict': foreign}, whole=False)
