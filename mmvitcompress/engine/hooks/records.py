"""What checkpoints and logs say of a run: its arch, its losses."""

import torch
from mmengine.dist import all_reduce_dict
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvitcompress.engine.wrappers import unwrapped
from mmvitcompress.registry import HOOKS
from mmvitcompress.tokens.losses import add_losses, has_losses


@HOOKS.register_module()
class ArchMetaHook(Hook):
    """Writes ``meta['arch']`` into every checkpoint.

    A backbone built from the checkpoint alone (``checkpoint=PATH``) then has
    its merges, widths and slimming. Models whose backbone has no arch of ours
    are left alone.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the arch, of builtin types only."""
        backbone = getattr(unwrapped(runner.model), 'backbone', None)
        arch = getattr(backbone, 'arch', None)
        if hasattr(arch, 'to_dict'):
            checkpoint['meta']['arch'] = arch.to_dict()


@HOOKS.register_module()
class AuxiliaryLossHook(Hook):
    """Adds the auxiliary losses of token methods to the model's own.

    Whatever the task: the model's dict of losses gets one more entry for
    each. Without such a method it does nothing. ``tools/train.py`` adds this
    hook by itself.
    """

    def before_train(self, runner: Runner) -> None:
        """Let the model return them."""
        model = unwrapped(runner.model)
        self._handles = add_losses(model) if has_losses(model) else []

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it came."""
        for handle in self._handles:
            handle.remove()


@HOOKS.register_module()
class MeanLossHook(Hook):
    """Logs the mean over all processes, where MMEngine logs rank 0's share.

    Then the curves of runs on one and on several processes compare. Every
    process must report the same names, as OpenMMLab's models do.
    """

    # before RuntimeInfoHook notes them
    priority = 'HIGHEST'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Average ``outputs`` in place."""
        if not outputs:
            return
        means = {
            name: value.detach().float() for name, value in outputs.items()
        }
        all_reduce_dict(means, op='mean')
        outputs.update(means)
