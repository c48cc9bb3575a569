"""A run killed by SIGKILL and resumed equals one that was left alone."""

import pytest
import torch

pytestmark = pytest.mark.slow

# what kills the process: imported by the config of the run
KILLER = """
import os
import signal

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

@HOOKS.register_module()
class KillHook(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        if runner.iter + 1 == int(os.environ.get('KILL_AFTER', -1)):
            kill()

fsync, calls = os.fsync, []

def fsync_or_kill(descriptor):
    calls.append(descriptor)
    if len(calls) == int(os.environ.get('KILL_AT_FSYNC', -1)):
        kill()
    fsync(descriptor)

os.fsync = fsync_or_kill
"""

WITH_KILLER = """
custom_imports = dict(imports=['killer'])
custom_hooks = [dict(type='KillHook')]
model['decode_head']['dropout_ratio'] = 0.5
"""

BY_ITER = """
default_hooks['checkpoint'].update(max_keep_ckpts=1, save_best='mIoU')
"""

# 12 images / 4 = 3 iterations per epoch
BY_EPOCH = """
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=1)
train_dataloader['sampler']['type'] = 'DefaultSampler'
train_dataloader.update(num_workers=2, persistent_workers=True)
default_hooks['checkpoint'].update(by_epoch=True, interval=1)
"""


def weights(path):
    content = torch.load(path, map_location='cpu', weights_only=True)
    return content['state_dict']


@pytest.mark.parametrize(
    ('changes', 'kill', 'saved', 'last'),
    [
        # while iter_8.pth is being written, after iter_4.pth, its pointer and
        # the best checkpoint with iter_4.pth's second version and pointer
        (BY_ITER, {'KILL_AT_FSYNC': '6'}, 'iter_4.pth', 'iter_12.pth'),
        # within the third epoch
        (BY_EPOCH, {'KILL_AFTER': '8'}, 'epoch_2.pth', 'epoch_4.pth'),
    ],
    ids=['by_iter', 'by_epoch'],
)
def test_resumed_run_equals_uninterrupted_one(
    config, helpers, tmp_path, changes, kill, saved, last
):
    (tmp_path / 'killer.py').write_text(KILLER)
    path = config(WITH_KILLER + changes, augment=True)
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    plugin = {'PYTHONPATH': str(tmp_path)}

    done = helpers.train(path, '--work-dir', whole, **plugin)
    assert done.returncode == 0, done.stderr
    killed = helpers.train(path, '--work-dir', broken, **plugin, **kill)
    assert killed.returncode == -9, killed.stderr
    pointer = (broken / 'last_checkpoint').read_text()
    assert pointer == str(broken / saved)
    before = helpers.logged(broken)
    resumed = helpers.train(path, '--work-dir', broken, '--resume', **plugin)
    assert resumed.returncode == 0, resumed.stderr

    expected = helpers.logged(whole)
    assert len(expected) == 12
    assert before == {step: expected[step] for step in before}
    assert 3 < len(before) < 12
    assert helpers.logged(broken) == expected
    for key in ('mIoU', 'decode.acc_seg'):
        assert helpers.logged(broken, key) == helpers.logged(whole, key)
    mine, theirs = weights(broken / last), weights(whole / last)
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(mine[key], value), key
