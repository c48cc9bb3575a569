"""Whether a module carries hooks, so that it must be called as it is.

Not what carries hooks: ``torch.nn.utils.prune`` and the old ``weight_norm``
make weights anew in one, and whoever registers a hook wants to see what goes
through a module.
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_HOOKS = (
    '_forward_pre_hooks',
    '_forward_hooks',
    '_backward_pre_hooks',
    '_backward_hooks',
)


def has_hooks(module: nn.Module) -> bool:
    """Whether calling a module does more than its class says."""
    own = module.__dict__  # torch 2.7 compiles no vars()
    return 'forward' in own or any(own.get(name) for name in _HOOKS)


def is_bare(module: nn.Module) -> bool:
    """Whether neither a module nor a part of it :func:`has_hooks`."""
    return not any(has_hooks(part) for part in module.modules())


def works_on_tokens(steps: nn.Sequential) -> bool:
    """Whether steps give a token what they'd give all its positions.

    Transposed convolutions whose stride is their kernel do, and so do batch
    norms whose statistics are weighted by the positions.
    """
    return is_bare(steps) and all(
        type(step) is nn.ConvTranspose2d
        # Identity stands where a batch norm was folded
        or isinstance(step, (_BatchNorm, nn.Identity, nn.GELU))
        for step in steps
    )
