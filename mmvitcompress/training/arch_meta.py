"""Checkpoints of training runs that carry their backbone's shape."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

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
        model = runner.model
        while is_model_wrapper(model):
            model = model.module
        arch = getattr(getattr(model, 'backbone', None), 'arch', None)
        if hasattr(arch, 'to_dict'):
            checkpoint['meta']['arch'] = arch.to_dict()
