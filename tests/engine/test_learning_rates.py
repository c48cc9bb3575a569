"""Rates that are foreseen, against those that a run then has."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.optim import CosineAnnealingLR, LinearLR, MultiStepLR
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmvitcompress.channels import ReductionSchedule, convergence_notice
from mmvitcompress.engine.learning_rates import foreseen_rates

EPOCH, ITERATIONS = 4, 20


def make_run(schedule, kind=EpochBasedTrainLoop, length=ITERATIONS):
    """What is read of a runner, with two groups of parameters."""
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [dict(params=[params[0]]), dict(params=[params[1]], lr=0.5)]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    return SimpleNamespace(
        optim_wrapper=SimpleNamespace(optimizer=optimizer),
        param_schedulers=schedule(optimizer),
        train_dataloader=range(EPOCH),
        train_loop=object.__new__(kind),
        max_iters=length,
    )


def warm_then_cosine(optimizer):
    return [
        LinearLR(optimizer, 0.1, by_epoch=False, end=5),
        CosineAnnealingLR(
            optimizer, eta_min=1e-3, by_epoch=False, begin=5, end=ITERATIONS
        ),
    ]


def steps_of_epochs(optimizer):
    return [MultiStepLR(optimizer, [2, 3], gamma=0.1, by_epoch=True)]


@pytest.mark.parametrize('index', [0, 1])
@pytest.mark.parametrize('schedule', [warm_then_cosine, steps_of_epochs])
def test_the_run_has_the_foreseen_rates(schedule, index):
    run = make_run(schedule)
    optimizer = run.optim_wrapper.optimizer
    group = optimizer.param_groups[index]
    rates = foreseen_rates(run, group)
    seen = []
    for iteration in range(1, ITERATIONS + 1):
        seen.append(group['lr'])
        optimizer.step()
        for scheduler in run.param_schedulers:
            if not scheduler.by_epoch or iteration % EPOCH == 0:
                scheduler.step()
    np.testing.assert_allclose(rates, seen)
    assert len(set(seen)) > 2


def test_runs_of_iterations_have_no_epochs():
    run = make_run(steps_of_epochs, IterBasedTrainLoop)
    group = run.optim_wrapper.optimizer.param_groups[1]
    assert (foreseen_rates(run, group) == 0.5).all()


def test_runs_of_any_length_are_foreseen():
    """300 epochs of ImageNet are 1.5 million iterations."""

    def fall(optimizer):
        return [CosineAnnealingLR(optimizer, 300_000, 1e-3, by_epoch=False)]

    run = make_run(fall, IterBasedTrainLoop, length=300_000)
    group = run.optim_wrapper.optimizer.param_groups[0]
    rates = foreseen_rates(run, group)
    phase = np.cos(np.pi * np.arange(300_000) / 300_000)
    expected = 1e-3 + (0.1 - 1e-3) * (1 + phase) / 2
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    # at which columns of 384 entries can't settle
    schedule = ReductionSchedule(0.5, 0.4, warmup=1000)
    notice = convergence_notice(schedule, rates, memory=0, width=384)
    assert 'ends at 0.001' in notice


def test_what_is_not_foreseen():
    run = make_run(lambda optimizer: None)
    group = run.optim_wrapper.optimizer.param_groups[0]
    assert (foreseen_rates(run, group) == 0.1).all()
    run.param_schedulers = {'generator': [], 'discriminator': []}
    assert foreseen_rates(run, group) is None
