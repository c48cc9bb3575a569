"""The learning rates of a run: schedules that follow its length, and what
they will give.

MMEngine counts a schedule's steps as the config says, whatever length the
command line gives the run: one that is cut short never gets out of its
warm-up, or never comes down.
"""

import copy
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, Runner

LENGTHS = ('max_iters', 'max_epochs')
# what schedulers count in iterations or epochs
COUNTS = ('begin', 'end', 'T_max', 'step_size', 'total_steps')
COUNTS += ('milestones', 'periods')
ENDLESS = 10**9  # MMEngine's end of what has none


def follow_length(
    cfg: Config, path: str, options: Mapping | None = None
) -> str | None:
    """Scale the schedules where the command line changed a run's length.

    Args:
        cfg: The config, options applied; its ``param_scheduler`` is changed.
        path: Its file.
        options: Those of the command line. Where they name schedulers, none
            is scaled. Defaults to none.

    Returns:
        What was done, or which schedule the run cuts off; None if neither.
    """
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        if 'type' not in schedulers:  # those of several optimizers
            return None
        schedulers = [schedulers]
    loop = cfg.get('train_cfg') or {}
    named = {key.split('.')[0] for key in options or ()}
    if 'train_cfg' in named and 'param_scheduler' not in named:
        file = Config.fromfile(path, import_custom_modules=False)
        before = file.get('train_cfg') or {}
        for name in LENGTHS:
            now, was = loop.get(name), before.get(name)
            if not now or not was or now == was:
                continue
            scaled = [_scaled(each, now, was) for each in schedulers]
            cfg.param_scheduler = [each for each in scaled if _is_long(each)]
            return (
                f'train_cfg.{name} is {now}, in the config {was}: all of '
                f'param_scheduler is scaled by {now / was:.4g}; name one of '
                'its values among --cfg-options to set it yourself'
            )
    return _cut_off(schedulers, loop)


def _cut_off(schedulers: list[Mapping], loop: Mapping) -> str | None:
    for index, each in enumerate(schedulers):
        name = LENGTHS[each.get('by_epoch', True)]
        end, length = each.get('end'), loop.get(name)
        known = isinstance(end, int | float) and isinstance(length, int)
        if known and length < end < ENDLESS:
            return (
                f'param_scheduler.{index} ends at {end}, the run at {length}, '
                f'before the rate is where it should be: set its end to '
                f'{length}; or give train_cfg.{name} by --cfg-options, and '
                'leave param_scheduler to follow'
            )
    return None


def _scaled(scheduler: Mapping, now: int, was: int) -> dict:
    # an epoch of many iterations is a warm-up, unless it is the only one
    least = int(scheduler.get('convert_to_iter_based', False) and now > 1)

    def scale(value):
        if isinstance(value, list | tuple):
            return [scale(each) for each in value]
        if not isinstance(value, int | float) or not 0 < value < ENDLESS:
            return value
        return max(least, round(value * now / was))

    counts = {key: scale(scheduler[key]) for key in COUNTS if key in scheduler}
    return {**scheduler, **counts}


def _is_long(scheduler: Mapping) -> bool:
    """Whether more of it is left than the single step of a warm-up that
    MMEngine would stop at its start."""
    steps = scheduler.get('end', ENDLESS) - scheduler.get('begin', 0)
    return steps > (0 if scheduler.get('convert_to_iter_based') else 1)


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
