"""Schedules that follow the length of a run.

MMEngine counts a schedule's steps as the config says, whatever length the
command line gives the run: one that is cut short never gets out of its
warm-up, or never comes down.
"""

from collections.abc import Mapping

from mmengine.config import Config

LENGTHS = ('max_iters', 'max_epochs')
# what schedulers count in iterations or epochs; of the first MMEngine takes
# parts of an epoch where it makes iterations of them
SPANS = ('begin', 'end', 'T_max')
COUNTS = (*SPANS, 'step_size', 'total_steps', 'milestones', 'periods')
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
            scaled = [_scaled(each, now / was) for each in schedulers]
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


def _scaled(scheduler: Mapping, ratio: float) -> dict:
    def scale(value, whole):
        if isinstance(value, list | tuple):
            return [scale(each, whole) for each in value]
        if not isinstance(value, int | float) or value >= ENDLESS:
            return value
        return round(value * ratio) if whole else value * ratio

    parts = SPANS if scheduler.get('convert_to_iter_based') else ()
    counts = {*COUNTS} & {*scheduler}
    new = {key: scale(scheduler[key], key not in parts) for key in counts}
    return {**scheduler, **new}


def _is_long(scheduler: Mapping) -> bool:
    """Whether more of it is left than the single step of a warm-up that
    MMEngine would stop at its start."""
    steps = scheduler.get('end', ENDLESS) - scheduler.get('begin', 0)
    return steps > (0 if scheduler.get('convert_to_iter_based') else 1)
