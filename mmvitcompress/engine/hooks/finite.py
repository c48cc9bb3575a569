"""Stop runs that have diverged, before they write over what is good."""

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmvitcompress.engine.hooks.atomic_checkpoint import saved_checkpoints
from mmvitcompress.engine.wrappers import unwrapped
from mmvitcompress.errors import DivergenceError
from mmvitcompress.registry import HOOKS


@HOOKS.register_module()
class FiniteHook(Hook):
    """Stops a run once a loss or a weight is not finite.

    Losses are looked at after every iteration, weights before each is saved
    and at the end: no checkpoint of such a model is written.
    """

    # after MeanLossHook, so that all processes see what one of them has met
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._done = 0  # iterations

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict[str, Tensor] | None = None,
    ) -> None:
        """Look at the losses.

        Raises:
            DivergenceError: If one is nan or infinite.
        """
        self._done = runner.iter + 1
        for name, value in (outputs or {}).items():
            value = torch.as_tensor(value).detach()
            if not value.isfinite().all():
                stop(runner, f'{name} is {value.sum().item()}', self._done)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at the weights.

        Raises:
            DivergenceError: If one is nan or infinite.
        """
        name = not_finite(unwrapped(runner.model))
        if name:
            stop(runner, f'weight {name} is not finite', self._done)

    def after_train(self, runner: Runner) -> None:
        """Look at the weights, see :meth:`before_save_checkpoint`."""
        self.before_save_checkpoint(runner, {})


def not_finite(model: nn.Module) -> str | None:
    """Name of a parameter with a value that is nan or infinite, if any."""
    named = dict(model.named_parameters())
    # one sum for all: nan and infinity outlive it, and it waits once
    if not sum(p.detach().double().sum() for p in named.values()).isfinite():
        for name, parameter in named.items():
            if not parameter.isfinite().all():
                return name
    return None


def stop(runner: Runner, what: str, iteration: int) -> None:
    """Raise DivergenceError that says where, when, and what to resume from.

    Args:
        runner: Of the run.
        what: What is not finite.
        iteration: How many iterations were done.
    """
    saved = [p for p in saved_checkpoints(runner.work_dir) if p.is_file()]
    remedy = 'nothing was saved yet: start again'
    if saved:
        remedy = f'go on from the last checkpoint by --resume {saved[0]}'
    raise DivergenceError(
        f'{what} after iteration {iteration} (epoch {runner.epoch + 1}): '
        'lower the learning rate or clip gradients '
        f'(optim_wrapper.clip_grad=dict(max_norm=1.0)); {remedy}'
    )
