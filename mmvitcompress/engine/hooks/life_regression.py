"""Two-stage training of patch slimming (life regression, Algorithm 1)."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvitcompress.engine.wrappers import unwrapped
from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import HOOKS
from mmvitcompress.tokens import SoftPatchSlimmer
from mmvitcompress.utils.checks import check_flag


@HOOKS.register_module()
class LifeRegressionHook(Hook):
    """Trains the life predictor first, then everything else.

    In the first stage only the predictor of a backbone that was built with
    ``soft_slimming=True`` learns; batch norms keep their statistics. In the
    second one it is frozen and the rest of the model learns. What a model has
    frozen itself (``frozen_stages``) stays frozen.

    A frozen parameter has no gradient at all, so that the optimizer leaves
    it, its moments and its weight decay alone, and clipping does not count
    it. Which stage it is depends on the epoch or iteration only: a resumed
    run goes on as if it had not stopped. On several processes it needs
    ``find_unused_parameters=True`` in the config.

    Learning rates are the optimizer's concern: the paper trains the predictor
    with 1e-5 and the rest with 1e-3, at 128 images a step.

    In segmentation and detection (ours, the papers slim classifiers) the
    first stage starts from the dense model trained on the task
    (``load_from``): what a head that knows nothing says of patches teaches
    the predictor nothing. For the second one set ``hard_slimming``: maps of
    later blocks then hold the features that patches had when they left, as
    they do in use, and the head learns to read them.

    Args:
        predictor_epochs: Length of the first stage; None trains all at once
            (the paper's ablation), 0 leaves the predictor as it was loaded.
            Defaults to 1.
        predictor_iters: The same in iterations, in place of
            ``predictor_epochs``; the way to say it in runs that count
            iterations. Defaults to None.
        hard_slimming: Whether patches leave in the second stage as they do in
            use, where the paper weights them. Defaults to False.

    Raises:
        ConfigError: Before training, if the model has no predictor that could
            learn, or if the first stage does not fit into the run.
    """

    def __init__(
        self,
        predictor_epochs: int | None = 1,
        predictor_iters: int | None = None,
        hard_slimming: bool = False,
    ):
        for name, value in (
            ('predictor_epochs', predictor_epochs),
            ('predictor_iters', predictor_iters),
        ):
            if value is not None and (type(value) is not int or value < 0):
                raise ConfigError(
                    f'{name} must be a whole number, 0 or more, or None, but '
                    f'got {value!r}'
                )
        check_flag('hard_slimming', hard_slimming)
        self.by_epoch = predictor_iters is None
        self.length = predictor_epochs if self.by_epoch else predictor_iters
        if hard_slimming and self.length is None:
            raise ConfigError(
                'hard_slimming gives the predictor no gradient, so that it '
                'needs a first stage: set predictor_epochs or predictor_iters'
            )
        self.hard_slimming = hard_slimming
        self._stage = None

    def before_train(self, runner: Runner) -> None:
        """Check what can be checked, and note what is to be trained."""
        inner = unwrapped(runner.model)
        self._slimmers = [
            part
            for part in inner.modules()
            if isinstance(part, SoftPatchSlimmer)
        ]
        ours = {
            id(parameter)
            for module in self._slimmers
            for parameter in module.predictor.parameters()
        }
        learning = [p for p in inner.parameters() if p.requires_grad]
        self._parts = {
            'predictor': [p for p in learning if id(p) in ours],
            'rest': [p for p in learning if id(p) not in ours],
        }
        if not self._parts['predictor']:
            raise ConfigError(
                'LifeRegressionHook trains a life predictor, but the model '
                'has none that could learn: set model.backbone.'
                'soft_slimming=True and model.backbone.patch_slimming'
            )
        self._stage = None
        if self.length is None:
            return
        if hasattr(inner, 'extract_feat') and not runner._load_from:
            # mmseg's and mmdet's; a classifier comes with its backbone
            runner.logger.warning(
                f'The head of {type(inner).__name__} starts from random '
                'weights, from which the life predictor learns nothing: set '
                'load_from to the dense model trained on the task'
            )
        self._check_length(runner)
        require_unused(runner, 'LifeRegressionHook')
        self._norms = [
            part for part in inner.modules() if isinstance(part, _BatchNorm)
        ]

    def _check_length(self, runner: Runner) -> None:
        if not self.by_epoch:
            name, whole = 'predictor_iters', runner.max_iters
        elif hasattr(runner.train_loop, 'dataloader_iterator'):
            raise ConfigError(
                'predictor_epochs needs a loop over epochs, but this run '
                'counts iterations: give predictor_iters instead of '
                f'predictor_epochs={self.length}'
            )
        else:
            name, whole = 'predictor_epochs', runner.max_epochs
        if self.length > whole:
            raise ConfigError(
                f'{name} must not exceed the run, which has {whole}, but got '
                f'{self.length}: train longer or shorten the first stage'
            )

    def stage(self, runner: Runner) -> str:
        """What learns in the iteration to come: 'predictor' or 'rest'.

        'all' where there is only one stage.
        """
        if self.length is None:
            return 'all'
        now = runner.epoch if self.by_epoch else runner.iter
        return 'predictor' if now < self.length else 'rest'

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None
    ) -> None:
        """Freeze what doesn't learn in this stage."""
        stage = self.stage(runner)
        if stage != self._stage:
            self._enter(runner, stage)
        if stage == 'predictor':
            # in a loop over iterations, each one sets the mode anew
            for norm in self._norms:
                norm.eval()
        elif stage == 'rest' and self.hard_slimming:
            for slimmer in self._slimmers:
                slimmer.eval()

    def _enter(self, runner: Runner, stage: str) -> None:
        for name, part in self._parts.items():
            set_learning(part, stage in (name, 'all'))
        if self._stage == 'predictor':
            runner.model.train()  # batch norms, too
        self._stage = stage
        what = {
            'all': 'life predictor and model train at once',
            'predictor': 'the life predictor trains, the rest is frozen',
            'rest': 'the life predictor is frozen, the rest trains'
            + ' on the patches that stay' * self.hard_slimming,
        }
        runner.logger.info(f'Life regression: {what[stage]}')

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it came."""
        for part in self._parts.values():
            set_learning(part, True)


def require_unused(runner: Runner, hook: str) -> None:
    """Raise ConfigError if DDP would wait for gradients of what is frozen."""
    if is_model_wrapper(runner.model) and not getattr(
        runner.model, 'find_unused_parameters', False
    ):
        raise ConfigError(
            f'{hook} freezes parts of the model, which several processes must '
            'be told: set find_unused_parameters=True in the config'
        )


def set_learning(parameters: list[nn.Parameter], learn: bool) -> None:
    """Freeze parameters, or let them learn."""
    for parameter in parameters:
        parameter.requires_grad_(learn)
        if not learn:
            parameter.grad = None  # else the optimizer would go on with it
