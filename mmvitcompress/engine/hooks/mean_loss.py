"""Losses in the log that are those of the whole batch."""

import torch
from mmengine.dist import all_reduce_dict
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvitcompress.registry import HOOKS


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
