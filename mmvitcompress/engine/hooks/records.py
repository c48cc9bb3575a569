"""What checkpoints and logs say of a run: its arch, the batch's losses."""

import torch
from mmengine.dist import all_reduce_dict
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvitcompress.engine.wrappers import unwrapped
from mmvitcompress.registry import HOOKS


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
