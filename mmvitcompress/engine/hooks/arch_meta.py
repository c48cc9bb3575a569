"""Checkpoints of training runs that carry their backbone's shape."""

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
