"""How token methods change while they train: keep rates, learned rates."""

import math
from dataclasses import replace
from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvitcompress.engine.hooks.life_regression import (
    require_unused,
    set_learning,
)
from mmvitcompress.engine.wrappers import unwrapped
from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import HOOKS
from mmvitcompress.tokens import TokenMethod


def token_methods(model: nn.Module) -> list[TokenMethod]:
    """The token methods of a model, inside of its wrappers."""
    parts = unwrapped(model).modules()
    return [part for part in parts if isinstance(part, TokenMethod)]


class ScheduleHook(Hook):
    """Varies a value of token methods over the run.

    What it is depends on the iteration only, so that a resumed run goes on as
    if it had not stopped. Validation runs by the config: it measures what
    comes out.

    Raises:
        ConfigError: Before training, if no token method of the model has it.
    """

    field: str

    def value(self, target, progress: float):
        """The value once so much of the run is over, from 0 to 1; the
        config's is ``target``."""
        raise NotImplementedError

    def before_train(self, runner: Runner) -> None:
        """Note the values to come to."""
        self._targets = [
            (method, method.spec)
            for method in token_methods(runner.model)
            if getattr(method.spec, self.field, None) is not None
        ]
        if not self._targets:
            raise ConfigError(
                f'{type(self).__name__} varies {self.field}, which no token '
                'method of the model has: give the backbone one that has, or '
                'leave the hook out'
            )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None
    ) -> None:
        """Set the value of the iteration."""
        progress = runner.iter / runner.max_iters
        for method, spec in self._targets:
            value = self.value(getattr(spec, self.field), progress)
            method.spec = replace(spec, **{self.field: value})

    def before_val(self, runner: Runner) -> None:
        """Run by the config."""
        for method, spec in self._targets:
            method.spec = spec

    after_train = before_val


@HOOKS.register_module()
class KeepRateHook(ScheduleHook):
    """Lowers keep rates from 1 to the config's by half a cosine (EViT).

    Args:
        begin: Fraction of the run after which rates start to fall. Defaults
            to 1/30: epoch 10 of EViT's 300.
        end: Fraction of the run at which they are down. Defaults to 11/30.

    Raises:
        ConfigError: If the fractions are out of order.
    """

    field = 'keep_rate'

    def __init__(self, begin: float = 1 / 30, end: float = 11 / 30):
        if not 0 <= begin < end <= 1:
            raise ConfigError(
                'begin and end must be fractions of the run, 0 ≤ begin < end '
                f'≤ 1, but got {begin} and {end}'
            )
        self.begin, self.end = begin, end

    def value(self, target: float, progress: float) -> float:
        """The rate at some point of the run."""
        done = (progress - self.begin) / (self.end - self.begin)
        cosine = math.cos(math.pi * min(max(done, 0.0), 1.0))
        return target + (1 - target) * (1 + cosine) / 2


@HOOKS.register_module()
class TokenStageHook(ScheduleHook):
    """Chooses tokens anew in every block at first, later in stages (Evo-ViT).

    Args:
        begin: Fraction of the run after which the config's stages hold.
            Defaults to 2/3: epoch 200 of Evo-ViT's 300.

    Raises:
        ConfigError: If it is no fraction.
    """

    field = 'stages'

    def __init__(self, begin: float = 2 / 3):
        if not 0 <= begin <= 1:
            raise ConfigError(
                f'begin must be a fraction of the run, but got {begin}'
            )
        self.begin = begin

    def value(self, target: tuple, progress: float) -> tuple:
        """The stages at some point of the run."""
        return target if progress >= self.begin else ()


@HOOKS.register_module()
class TokenRateHook(Hook):
    """Trains token rates alone, and writes the arch that they lead to.

    All weights are frozen, and batch norms keep their statistics (DiffRate).
    After training ``learned_arch.json`` lies in the work directory: with it
    as ``arch`` and the checkpoint that the run started from, a backbone runs
    at the rates that were found. On several processes it needs
    ``find_unused_parameters=True`` in the config.

    Raises:
        ConfigError: Before training, if the model has no rates that learn.
    """

    def before_train(self, runner: Runner) -> None:
        """Freeze everything else."""
        model = unwrapped(runner.model)
        learning = {
            id(parameter)
            for method in token_methods(model)
            for name in getattr(method.spec, 'learned_only', ())
            for parameter in getattr(method, name, nn.Module()).parameters()
        }
        self._rest = [
            parameter
            for parameter in model.parameters()
            if parameter.requires_grad and id(parameter) not in learning
        ]
        if not learning:
            raise ConfigError(
                'TokenRateHook trains token rates, but the model has none '
                'that learn: set model.backbone.soft_slimming=True beside '
                'the rates'
            )
        require_unused(runner, 'TokenRateHook')
        self._norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        set_learning(self._rest, False)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None
    ) -> None:
        """Keep statistics: each iteration may have set the mode anew."""
        for norm in self._norms:
            norm.eval()

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it came, and write the arch."""
        set_learning(self._rest, True)
        self._write(runner)

    @master_only
    def _write(self, runner: Runner) -> None:
        backbone = unwrapped(runner.model).backbone
        specs = {
            spec.key: getattr(backbone, spec.key).learned() or spec
            for spec in backbone.arch.reductions
        }
        arch = backbone.arch.with_reductions(*specs.values())
        path = Path(runner.work_dir) / 'learned_arch.json'
        arch.save(path)
        saved = 1 - arch.macs() / arch.with_reductions().macs()
        runner.logger.info(
            f'Token rates that save {saved:.1%} of the MACs are in {path}'
        )
