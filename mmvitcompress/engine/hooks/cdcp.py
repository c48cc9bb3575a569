"""CDCP as a hook: channels are pruned while a model trains (CAIT III-C)."""

import dataclasses

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvitcompress.channels import (
    Kinds,
    MacBudget,
    ReductionSchedule,
    SelectionRules,
    apply_penalty_,
    clear_moments_,
    column_norms,
    convergence_notice,
    count_unconverged,
    find_compactors,
    kept_channels,
    left_widths,
    select,
    set_kept_,
    shrink_masked_,
)
from mmvitcompress.channels.compactors import each_kind
from mmvitcompress.channels.convergence import MEMORY
from mmvitcompress.engine.hooks.finite import stop
from mmvitcompress.engine.learning_rates import foreseen_rates
from mmvitcompress.engine.optimizers import compactor_groups
from mmvitcompress.engine.wrappers import unwrapped
from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import HOOKS
from mmvitcompress.utils.checks import (
    build_spec,
    check_at_least_zero,
    check_flag,
    check_positive,
    check_positive_number,
    check_target,
    is_number,
    pair,
)


@HOOKS.register_module()
class CDCPHook(Hook):
    """Prunes channels of a backbone that was built with ``compactors=True``.

    Every optimizer step gets CDCP's gradient (Eq. 2), when gradients are
    final: accumulated, reduced, unscaled and clipped. Every ``interval``
    iterations the masks are rebuilt for the reduction that is due by then.
    Masks are a function of the weights, and the reduction due one of the
    iteration, so that all processes agree without telling each other, and a
    resumed run goes on as if it had not stopped.

    Use :class:`~mmvitcompress.engine.hooks.ViTOptimWrapperConstructor`, which
    gives compactors moments of their own and no weight decay.

    Args:
        target: Overall reduction to end with, tokens included, as a fraction
            of the dense model's MACs.
        img_size: Image size (H, W) at which MACs are counted, in pixels.
            Defaults to the arch's.
        num_classes: Outputs of the classifier that the MACs include. Defaults
            to 0.
        warmup_epochs: Epochs before the first channel is masked; the paper's
            are 30. Defaults to 0.
        warmup: The same in iterations. Defaults to 0.
        increment: Growth of the reduction at a time. Defaults to 0.00025.
        interval: Iterations between two selections. Defaults to 25.
        settle_epochs: Epochs at the end in which the masks stay as they are,
            so that channels masked last converge as well. Defaults to 0.
        settle: The same in iterations. Defaults to 0.
        lam: Weight λ of the lasso. Defaults to 1e-5.
        rules: Arguments of :class:`~mmvitcompress.channels.SelectionRules`.
        shrink: By how much masked columns are shortened in each step besides
            what the optimizer does, as a fraction of their initial length:
            for runs of less than some ten thousand steps, which don't
            converge otherwise; see
            :func:`~mmvitcompress.channels.shrink_masked_`. Defaults to 0.
        clear_moments: Whether Adam forgets the objective where channels have
            just been masked, another help for short runs; see
            :func:`~mmvitcompress.channels.clear_moments_`. Defaults to False.
        report_interval: Iterations between two reports of what each block
            keeps. Defaults to 1000.

    Raises:
        ConfigError: Before training, if the target cannot be reached, the run
            is too short, or model or optimizer aren't made for it.
    """

    def __init__(
        self,
        target: float,
        img_size: int | tuple[int, int] | None = None,
        num_classes: int = 0,
        warmup_epochs: float = 0,
        warmup: int = 0,
        increment: float = 0.00025,
        interval: int = 25,
        settle_epochs: float = 0,
        settle: int = 0,
        lam: float = 1e-5,
        rules: dict | None = None,
        shrink: float = 0.0,
        clear_moments: bool = False,
        report_interval: int = 1000,
    ):
        for name, iters, epochs in (
            ('warmup', warmup, warmup_epochs),
            ('settle', settle, settle_epochs),
        ):
            check_at_least_zero(f'{name}_epochs', epochs)
            if type(iters) is not int or iters < 0 or (iters and epochs):
                raise ConfigError(
                    f'{name} is given in epochs or in iterations, a whole '
                    f'number from 0 on, but got {name}_epochs={epochs} and '
                    f'{name}={iters!r}'
                )
        if not is_number(shrink) or not 0 <= shrink < 1:
            raise ConfigError(f'shrink must lie in [0, 1), but got {shrink!r}')
        check_target(target)
        if img_size is not None:
            pair('img_size', img_size)
        if num_classes:
            check_positive('num_classes', num_classes)
        check_positive_number('increment', increment)
        check_at_least_zero('lam', lam)
        check_positive('interval', interval)
        check_positive('report_interval', report_interval)
        check_flag('clear_moments', clear_moments)
        self.target = target
        self.img_size = img_size
        self.num_classes = num_classes
        self.warmup = warmup, warmup_epochs
        self.settle = settle, settle_epochs
        self.growth = dict(increment=increment, interval=interval)
        self.lam = lam
        self.rules = build_spec('rules', SelectionRules, rules or {})
        self.shrink = shrink
        self.clear_moments = clear_moments
        self.report_interval = report_interval
        self._handles = []

    def before_train(self, runner: Runner) -> None:
        """Check what can be checked, then watch the optimizer's steps."""
        backbone = getattr(unwrapped(runner.model), 'backbone', None)
        if not hasattr(backbone, 'arch'):
            raise ConfigError(
                'CDCPHook needs a backbone of mmvitcompress, but got '
                f'{type(backbone).__name__}'
            )
        self.compactors = find_compactors(backbone)
        if not self.compactors:
            raise ConfigError(
                'CDCPHook prunes by compactors, but the backbone has none: '
                'set model.backbone.compactors=True'
            )
        blocks = len(backbone.arch.qk_dims)
        if len(self.compactors) != blocks:
            raise ConfigError(
                f'CDCPHook counts the MACs of {blocks} blocks, but the '
                f'backbone has {len(self.compactors)}: let out_indices '
                'include the last'
            )
        self.budget = MacBudget.of(
            backbone.arch, self.img_size, self.num_classes
        )
        self.budget.check(self.target, self.budget.floors(self.rules))
        self.schedule = self._schedule(runner)
        optimizer = runner.optim_wrapper.optimizer
        groups = compactor_groups(runner.optim_wrapper, self.compactors)
        if runner.iter == 0:
            self._warn(runner, groups)
        self._handles = [optimizer.register_step_pre_hook(self._penalise)]
        if self.shrink:
            after = optimizer.register_step_post_hook(self._shrink)
            self._handles.append(after)

    def _schedule(self, runner: Runner) -> ReductionSchedule:
        """When channels go; checked against the length of the run."""
        warmup, settle = (
            iters or round(epochs * len(runner.train_dataloader))
            for iters, epochs in (self.warmup, self.settle)
        )
        schedule = ReductionSchedule(
            self.target,
            start=self.budget.reduction(),
            warmup=warmup,
            **self.growth,
        )
        until = runner.max_iters - settle
        schedule.check(until)
        return dataclasses.replace(schedule, until=until)

    def _warn(self, runner: Runner, groups: list[dict]) -> None:
        rates = foreseen_rates(runner, groups[0])
        if rates is None:
            return
        notice = convergence_notice(
            self.schedule,
            rates,
            memory=0 if self.clear_moments else MEMORY,
            betas=groups[0].get('betas', (0.99, 0.999)),
            width=max(c.kept.shape[1] for c in each_kind(self.compactors)),
            shrink=self.shrink,
        )
        if notice:
            runner.logger.warning(f'CDCP may not converge: {notice}')

    def _penalise(self, optimizer, args, kwargs) -> None:
        apply_penalty_(self.compactors, self.lam)

    def _shrink(self, optimizer, args, kwargs) -> None:
        shrink_masked_(self.compactors, self.shrink)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch=None,
        outputs: dict | None = None,
    ) -> None:
        """Rebuild the masks where it is time, and log."""
        iteration = runner.iter + 1
        selects = self.schedule.selects_at(iteration)
        if selects:
            self._select(runner, iteration)
        if selects or iteration % self.schedule.interval == 0:
            for name, value in self._state(iteration).items():
                runner.message_hub.update_scalar(f'train/cdcp_{name}', value)
        if iteration % self.report_interval == 0:
            self.report(runner, iteration)

    def scores(self, runner: Runner) -> list[Kinds]:
        """What :func:`~mmvitcompress.channels.select` goes by."""
        return column_norms(self.compactors)

    def _select(self, runner: Runner, iteration: int) -> None:
        scores = self.scores(runner)
        if not all(np.isfinite(kind).all() for kind in each_kind(scores)):
            stop(runner, 'the score of a compactor is not finite', iteration)
        selection = select(
            scores,
            self.budget,
            self.schedule.reduction_at(iteration),
            self.rules,
        )
        before = kept_channels(self.compactors) if self.clear_moments else []
        set_kept_(self.compactors, selection.kept)
        if self.clear_moments:
            clear_moments_(
                runner.optim_wrapper.optimizer, self.compactors, before
            )

    def _state(self, iteration: int) -> dict:
        kept = kept_channels(self.compactors)
        scores = column_norms(self.compactors)
        return dict(
            target=self.schedule.reduction_at(iteration),
            reached=self.budget.reduction_at(
                left_widths(self.compactors, self.budget.constraints)
            ),
            masked=sum(int((~mask).sum()) for mask in each_kind(kept)),
            unconverged=sum(each_kind(count_unconverged(kept, scores))),
            lasso=sum(float(score.sum()) for score in each_kind(scores)),
        )

    def report(self, runner: Runner, iteration: int) -> None:
        """Log what every block keeps, as a line and as scalars."""
        widths = left_widths(self.compactors, self.budget.constraints)
        runner.logger.info(
            'CDCP keeps (Q/K, V, MLP) per block: '
            + ' '.join('/'.join(f'{n:g}' for n in width) for width in widths)
        )
        scalars = {
            f'cdcp_kept/block{block}_{kind}': width[i]
            for block, width in enumerate(widths, 1)
            for i, kind in enumerate(('qk', 'v', 'mlp'))
        }
        runner.visualizer.add_scalars(scalars, step=iteration)

    def after_train(self, runner: Runner) -> None:
        """Say how it ended."""
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.report(runner, runner.iter)
        state = self._state(runner.iter)
        runner.logger.info(
            f'CDCP reached a reduction of {state["reached"]:.2%} (target '
            f'{self.target:.2%}); {state["unconverged"]} of '
            f'{state["masked"]} masked channels have not become zero; '
            'tools/export_pruned.py makes the small checkpoint'
        )
