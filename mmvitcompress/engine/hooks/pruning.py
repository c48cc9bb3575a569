"""Channels that go by a criterion while a model trains."""

import torch
from mmengine.dist import all_reduce
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm

from mmvitcompress.channels.compactors import Kinds, each_kind
from mmvitcompress.channels.gates import GateScores, are_gates, hold_
from mmvitcompress.channels.importance import (
    CRITERIA,
    low_pass,
    magnitudes,
    per_cost,
    random_scores,
)
from mmvitcompress.checkpoints.load import load_strict
from mmvitcompress.engine.hooks.cdcp import CDCPHook
from mmvitcompress.engine.wrappers import unwrapped
from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import HOOKS
from mmvitcompress.utils.checks import check_choice, is_number


@HOOKS.register_module()
class PruningHook(CDCPHook):
    """Prunes by a criterion, where CDCP learns which channels go.

    Schedule, budget, rules and export are those of
    :class:`~mmvitcompress.engine.hooks.CDCPHook`, which says what a run
    needs. The compactors only carry the masks: what is masked is gone at once,
    and comes back as it was left if a later selection takes it again; see
    :class:`~mmvitcompress.channels.gates.GateScores`, by which Q and K hardly
    are. Their
    gradients count where gradients are clipped by their norm.

    Args:
        target: Overall reduction to end with, tokens included, as a fraction
            of the dense model's MACs.
        criterion: 'magnitude', of the weights (S²ViTE's static baseline);
            'taylor', how much the loss of the batches changes with a channel
            (NViT without its latency, SAViT's first order); 'lfs', the same on
            low-pass filtered images, of the batch before each selection
            (VTC-LFC, without its distance of features); or 'random', to
            compare with. Defaults to 'taylor'.
        seed: Of random scores. Defaults to 0.
        memory: What of the mean over batches stays when the next is added, in
            [0, 1). Defaults to 0.99.
        **kwargs: Arguments of CDCPHook, but those about compactors that
            vanish: ``lam``, ``shrink`` and ``clear_moments``.

    Raises:
        ConfigError: As CDCPHook, or if an argument is out of range.
    """

    def __init__(
        self,
        target: float,
        criterion: str = 'taylor',
        seed: int = 0,
        memory: float = 0.99,
        **kwargs,
    ):
        check_choice('criterion', criterion, CRITERIA)
        if type(seed) is not int or seed < 0:
            raise ConfigError(
                f'seed must be a whole number from 0 on, but got {seed!r}'
            )
        if not is_number(memory) or not 0 <= memory < 1:
            raise ConfigError(f'memory must lie in [0, 1), but got {memory!r}')
        for name in ('lam', 'shrink', 'clear_moments'):
            if name in kwargs:
                raise ConfigError(
                    f'{name} is about compactors that learn to vanish, which '
                    'is what CDCPHook does: leave it out, but got '
                    f'{name}={kwargs[name]!r}'
                )
        super().__init__(target, lam=0.0, **kwargs)
        self.criterion, self.seed, self.memory = criterion, seed, memory
        self._loaded = None

    def before_train(self, runner: Runner) -> None:
        """As CDCPHook; then go on with the means of a resumed run.

        Raises:
            ConfigError: As CDCPHook, or if the compactors have learned.
        """
        super().before_train(runner)
        if not are_gates(self.compactors):
            raise ConfigError(
                'PruningHook starts from compactors that learned nothing, '
                'but these are no gates: fold them by tools/export_pruned.py, '
                'and start from the exported weights'
            )
        self.gates = GateScores(self.compactors, self.memory)
        if runner.iter and self._loaded is not None:
            load_strict(self.gates, self._loaded, 'the resumed checkpoint')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the means over batches, which a resumed run goes on with."""
        checkpoint['channel_scores'] = self.gates.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the means until training begins."""
        self._loaded = checkpoint.get('channel_scores')

    def _warn(self, runner: Runner, groups: list[dict]) -> None:
        """Nothing has to converge."""

    def _penalise(self, optimizer, args, kwargs) -> None:
        weights = [part.weight for part in each_kind(self.compactors)]
        if self.criterion == 'taylor':
            self.gates.add([weight.grad for weight in weights])
        for weight in weights:
            weight.grad = None

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch=None,
        outputs: dict | None = None,
    ) -> None:
        """As CDCPHook, after a look at low frequencies where need be."""
        selects = self.schedule.selects_at(runner.iter + 1)
        if self.criterion == 'lfs' and selects:
            self._look_at_low_frequencies(runner, data_batch)
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def _look_at_low_frequencies(self, runner: Runner, data_batch) -> None:
        """Add the gradients of the loss on low-pass filtered images."""
        model = unwrapped(runner.model)
        data = model.data_preprocessor(data_batch, True)
        if isinstance(data, dict):
            data = data | dict(inputs=low_pass(data['inputs']))
        else:
            data = (low_pass(data[0]), *data[1:])
        norms = [
            m
            for m in model.modules()
            if isinstance(m, _BatchNorm) and m.training
        ]
        for norm in norms:
            norm.eval()  # statistics are of whole images
        loss, _ = model.parse_losses(model._run_forward(data, mode='loss'))
        for norm in norms:
            norm.train()
        weights = [part.weight for part in each_kind(self.compactors)]
        gradients = torch.autograd.grad(loss, weights)
        for gradient in gradients:
            all_reduce(gradient, 'mean')
        self.gates.add(gradients)

    def scores(self, runner: Runner) -> list[Kinds]:
        backbone = unwrapped(runner.model).backbone
        if self.criterion == 'magnitude':
            return magnitudes(backbone)
        if self.criterion == 'random':
            return random_scores(backbone, self.seed)
        whole = self.rules.whole_heads
        return per_cost(self.gates.scores(), self.budget, whole)

    def _select(self, runner: Runner, iteration: int) -> None:
        super()._select(runner, iteration)
        hold_(self.compactors)
