"""The learning rates of a run that is about to start."""

import copy
from types import SimpleNamespace

import numpy as np
from mmengine.runner import EpochBasedTrainLoop, Runner


def foreseen_rates(runner: Runner, group: dict) -> np.ndarray | None:
    """The learning rate of a parameter group in every iteration to come.

    Found by running copies of the schedulers ahead: some ten seconds for 300
    epochs of ImageNet.

    Args:
        runner: About to train from its first iteration.
        group: The optimizer's parameter group.

    Returns:
        One rate per iteration; None if the schedulers are of several
        optimizers.
    """
    schedulers = runner.param_schedulers or []
    if not isinstance(schedulers, list):
        return None
    optimizer = runner.optim_wrapper.optimizer
    index = [g is group for g in optimizer.param_groups].index(True)
    copies, stand_in = _detached(schedulers, optimizer)
    epoch = (
        len(runner.train_dataloader)
        if isinstance(runner.train_loop, EpochBasedTrainLoop)
        else runner.max_iters
    )
    rates = np.empty(runner.max_iters)
    for i in range(runner.max_iters):
        rates[i] = stand_in.param_groups[index]['lr']
        for scheduler in copies:
            if not scheduler.by_epoch or (i + 1) % epoch == 0:
                scheduler.step()
    return rates


def _detached(schedulers: list, optimizer) -> tuple[list, SimpleNamespace]:
    """Copies of schedulers, and the optimizer's groups without parameters."""

    def step():
        raise NotImplementedError('a stand-in has nothing to step')

    step._with_counter = True  # as schedulers mark what they have seen
    stand_in = SimpleNamespace(
        step=step,
        _global_step=0,
        param_groups=[
            {key: value for key, value in group.items() if key != 'params'}
            for group in optimizer.param_groups
        ],
    )
    copies = []
    for scheduler in schedulers:
        scheduler = copy.copy(scheduler)
        scheduler.optimizer = stand_in
        copies.append(scheduler)
    return copies, stand_in
