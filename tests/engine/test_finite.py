"""Diverged runs end, say why, and spoil nothing."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmvitcompress.engine.hooks.finite import FiniteHook, not_finite
from mmvitcompress.errors import DivergenceError

# spoils something after some iteration: imported by the config of the run
SPOILER = """
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Spoiler(Hook):
    priority = 'HIGHEST'

    def __init__(self, at, what):
        self.at, self.what = at, what

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        if runner.iter + 1 != self.at:
            return
        if self.what == 'loss':
            outputs['loss'] = outputs['loss'] * float('nan')
        else:
            next(runner.model.parameters()).data.fill_(float('inf'))
"""


@pytest.mark.parametrize(
    ('what', 'at', 'message'),
    [
        ('loss', 6, 'loss is nan after iteration 6'),
        # found before it is saved, four iterations after the last checkpoint
        (
            'weight',
            8,
            'weight backbone.conv1.weight is not finite after iteration 8',
        ),
    ],
)
def test_a_diverged_run_stops(
    tool, config, tmp_path, monkeypatch, what, at, message
):
    (tmp_path / 'spoiler.py').write_text(SPOILER)
    monkeypatch.syspath_prepend(tmp_path)
    changes = (
        "custom_imports = dict(imports=['spoiler'])\n"
        f"custom_hooks = [dict(type='Spoiler', at={at}, what={what!r})]\n"
    )
    run = tmp_path / 'run'
    status, error = tool('train', config(changes), '--work-dir', run)
    assert status == 1
    line = error.splitlines()[-1]
    assert message in line
    assert f'--resume {run}/iter_4.pth' in line
    assert [path.name for path in run.glob('*.pth')] == ['iter_4.pth']


def fake_runner(model=None, work_dir='nowhere'):
    return SimpleNamespace(iter=2, epoch=0, model=model, work_dir=work_dir)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_any_loss_that_is_not_finite_stops(value):
    hook = FiniteHook()
    fine = dict(loss=torch.tensor(1.0), loss_ce=torch.tensor([1.0, 2.0]))
    hook.after_train_iter(fake_runner(), 0, None, fine)
    wrong = {**fine, 'loss_ce': torch.tensor([1.0, value])}
    with pytest.raises(DivergenceError, match=r'loss_ce is .* iteration 3'):
        hook.after_train_iter(fake_runner(), 0, None, wrong)


def test_a_run_without_checkpoint_starts_again(tmp_path):
    model = nn.Linear(2, 2)
    FiniteHook().after_train(fake_runner(model))
    nn.init.constant_(model.bias, math.nan)
    (tmp_path / 'last_checkpoint').write_text('gone/iter_4.pth')
    runner = fake_runner(model, tmp_path)
    with pytest.raises(DivergenceError, match='nothing was saved yet'):
        FiniteHook().before_save_checkpoint(runner, {})


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_large_weights_are_finite(dtype):
    """Their sum isn't, in their own type."""
    model = nn.Linear(64, 64).to(dtype)
    nn.init.constant_(model.weight, torch.finfo(dtype).max)
    assert not_finite(model) is None
    model.weight.data[0, 0] = -math.inf
    assert not_finite(model) == 'weight'
