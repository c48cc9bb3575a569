"""What exists only because of other libraries' versions."""

from mmvitcompress.compat.deprecations import silence_warnings
from mmvitcompress.compat.mmcv_ext import provide_mmcv_ext
from mmvitcompress.compat.versions import require, require_installed
from mmvitcompress.compat.watching import watch

__all__ = ['install', 'require', 'watch']


def install() -> None:
    """Make MMCV without compiled ops and MMEngine's checkpoints usable.

    Called before anything is registered. Calling it again changes nothing.

    Raises:
        DependencyError: If MMEngine, timm or torchvision is missing, or
            torchvision was built for another torch.
    """
    require_installed('mmengine')
    require('timm')
    # imports MMEngine
    from mmvitcompress.compat.torch_load import allow_mmengine_checkpoints

    silence_warnings()
    provide_mmcv_ext()
    allow_mmengine_checkpoints()
