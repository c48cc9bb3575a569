"""Schedules of runs whose length the command line changes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from recipes import ROOT

from mmvitcompress.engine.learning_rates import follow_length, foreseen_rates

EPOCH = 4  # iterations
WARM = dict(type='LinearLR', start_factor=0.1, begin=0, end=20)
COSINE = dict(type='CosineAnnealingLR', eta_min=1e-4, begin=20, end=100)
STEPS = dict(type='MultiStepLR', milestones=[40, 80], gamma=0.1, end=100)
KINDS = {'max_iters': IterBasedTrainLoop, 'max_epochs': EpochBasedTrainLoop}


def config(name, length, *schedulers, **common):
    made = [dict(each, **common) for each in schedulers]
    return Config(dict(train_cfg={name: length}, param_scheduler=made))


def shorten(tmp_path, cfg, length, **others):
    """The config as --cfg-options make it, and what is said of it."""
    path = tmp_path / 'config.py'
    cfg.dump(path)
    name = next(iter(cfg.train_cfg))
    options = {f'train_cfg.{name}': length, **others}
    cfg.merge_from_dict(options)
    return cfg, follow_length(cfg, str(path), options)


def rates(cfg):
    """The rates that MMEngine gives a run of the config."""
    (name, length), *_ = cfg.train_cfg.items()
    iterations = length * (EPOCH if name == 'max_epochs' else 1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    common = dict(optimizer=optimizer, epoch_length=EPOCH)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(each), default_args=common)
        for each in cfg.param_scheduler
    ]
    run = SimpleNamespace(
        optim_wrapper=SimpleNamespace(optimizer=optimizer),
        param_schedulers=schedulers,
        train_dataloader=range(EPOCH),
        train_loop=object.__new__(KINDS[name]),
        max_iters=iterations,
    )
    return foreseen_rates(run, optimizer.param_groups[0])


@pytest.mark.parametrize('length', [50, 10, 200])
@pytest.mark.parametrize(
    ('name', 'common'),
    [
        ('max_iters', dict(by_epoch=False)),
        ('max_epochs', dict(by_epoch=True)),
        ('max_epochs', dict(by_epoch=True, convert_to_iter_based=True)),
    ],
)
def test_rates_are_those_of_a_config_of_that_length(
    name, common, length, tmp_path
):
    cfg = config(name, 100, WARM, COSINE, STEPS, **common)
    cfg, note = shorten(tmp_path, cfg, length)
    assert f'train_cfg.{name} is {length}, in the config 100' in note
    end, warm = dict(end=length), length // 5
    steps = [length * 4 // 10, length * 8 // 10]
    by_hand = config(
        name,
        length,
        WARM | dict(end=warm),
        COSINE | dict(begin=warm) | end,
        STEPS | dict(milestones=steps) | end,
        **common,
    )
    np.testing.assert_allclose(rates(cfg), rates(by_hand))
    assert rates(cfg).argmax() > 0  # out of its warm-up, and down again
    assert rates(cfg)[-1] < rates(cfg).max() / 10


def test_a_warm_up_of_less_than_two_steps_is_left_out(tmp_path):
    cfg = config('max_iters', 100, WARM, COSINE, by_epoch=False)
    cfg, _ = shorten(tmp_path, cfg, 5)
    assert [each.type for each in cfg.param_scheduler] == [COSINE['type']]
    # one step begun at a fifth of the way down
    assert rates(cfg)[0] == rates(cfg)[1] == 0.1
    assert rates(cfg)[-1] < 0.02


@pytest.mark.parametrize(
    ('length', 'first'),
    # an epoch of warm-up is left, but not in a run of a single one
    [(4, [0.01, 0.04, 0.07, 0.1]), (2, [0.01, 0.04, 0.07, 0.1]), (1, [0.1])],
)
def test_warm_ups_by_epochs_take_whole_ones(length, first, tmp_path):
    parts = dict(by_epoch=True, convert_to_iter_based=True)
    cfg = config('max_epochs', 100, WARM, COSINE, **parts)
    cfg, _ = shorten(tmp_path, cfg, length)
    found = rates(cfg)
    np.testing.assert_allclose(found[: len(first)], first)
    assert found[-1] < (0.03 if length > 1 else 0.09)


def test_what_names_schedulers_is_left_alone(tmp_path):
    key, before = 'param_scheduler.1.eta_min', dict(by_epoch=False)
    cfg = config('max_iters', 100, WARM, COSINE, **before)
    cfg, note = shorten(tmp_path, cfg, 50, **{key: 0.05})
    assert cfg.param_scheduler[0] == dict(WARM, **before)
    assert 'param_scheduler.1 ends at 100, the run at 50' in note
    assert 'set its end to 50' in note


@pytest.mark.parametrize(
    ('scheduler', 'length', 'cut'),
    [
        (dict(COSINE, by_epoch=False), 100, False),
        (dict(COSINE, by_epoch=False), 99, True),
        (dict(COSINE), 99, False),  # epochs, in a run of iterations
        (dict(type='StepLR', step_size=9, by_epoch=False), 5, False),
        (dict(COSINE, by_epoch=False, end=10**9), 99, False),
    ],
)
def test_a_config_that_cuts_its_schedule_is_told(
    scheduler, length, cut, tmp_path
):
    cfg = config('max_iters', length, scheduler)
    assert bool(follow_length(cfg, 'unread.py')) == cut


def test_schedules_of_several_optimizers_are_left_alone():
    cfg = Config(dict(param_scheduler=dict(a=[WARM]), train_cfg={}))
    assert follow_length(cfg, 'unread.py', {'train_cfg.max_iters': 1}) is None


def test_our_schedules_end_with_their_runs():
    paths = [*ROOT.glob('configs/*.py'), *ROOT.glob('configs/imagenet/*.py')]
    assert len(paths) > 90
    for path in paths:
        assert follow_length(Config.fromfile(path), path) is None, path


def test_a_short_run_comes_down(tool, config, tmp_path):
    schedule = 'param_scheduler[0].update(end=12)\n'
    short = ('--cfg-options', 'train_cfg.max_iters=4')
    folder = tmp_path / 'run'
    status, stderr = tool(
        'train', config(schedule), '--work-dir', folder, *short
    )
    assert status == 0, stderr
    (log,) = folder.glob('*/*.log')
    assert 'train_cfg.max_iters is 4, in the config 12' in log.read_text()
    (scalars,) = folder.glob('*/vis_data/scalars.json')
    lines = map(json.loads, scalars.read_text().splitlines())
    found = [line['lr'] for line in lines if 'lr' in line]
    # power 0.9 from 0.02 to 1e-4 in 4 steps
    expected = [1e-4 + (0.02 - 1e-4) * (1 - i / 3) ** 0.9 for i in range(4)]
    np.testing.assert_allclose(found, expected, atol=1e-8)
