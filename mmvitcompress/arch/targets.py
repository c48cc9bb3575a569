"""What a reduction is: a fraction of the dense, unmerged model's MACs."""

from mmvitcompress.errors import ConfigError


def dense(arch):
    """The arch without merging and slimming, what reductions refer to."""
    reductions = ('token_merging', 'patch_slimming')
    changes = {name: None for name in reductions if hasattr(arch, name)}
    return arch.replace(**changes)


def check_target(target: float) -> None:
    """Raise ConfigError if a target reduction is no fraction."""
    if not 0 < target < 1:
        raise ConfigError(
            'a target reduction must lie between 0 and 1 (0.5 saves half of '
            f'the MACs), but got {target}'
        )
