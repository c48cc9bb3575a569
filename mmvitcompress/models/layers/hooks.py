"""Parts that must be called, since more than their weights decides.

``torch.nn.utils.prune`` and the old ``weight_norm`` make weights anew in a
hook, and whoever registers a hook wants to see what goes through a module.
"""

from torch import nn

_HOOKS = (
    '_forward_pre_hooks',
    '_forward_hooks',
    '_backward_pre_hooks',
    '_backward_hooks',
)


def has_hooks(module: nn.Module) -> bool:
    """Whether calling a module does more than its class says."""
    own = vars(module)
    return 'forward' in own or any(own.get(name) for name in _HOOKS)


def is_bare(module: nn.Module) -> bool:
    """Whether neither a module nor a part of it :func:`has_hooks`."""
    return not any(has_hooks(part) for part in module.modules())
