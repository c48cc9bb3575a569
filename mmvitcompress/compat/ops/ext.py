"""What ``import mmcv._ext`` yields where MMCV was installed without its ops.

Executed under the name ``mmcv._ext`` by
:class:`mmvitcompress.compat.mmcv_ext.StandInFinder`. The operations of
segmenters and detectors on plain feature maps work; every other name is a
function that says what is missing once it is called, since MMCV's wrappers
look all of them up when they are imported.
"""

from collections.abc import Callable
from typing import Any

from mmvitcompress.compat.ops.deform_attn import (
    ms_deform_attn_backward,
    ms_deform_attn_forward,
)
from mmvitcompress.compat.ops.nms import nms, nms_match, softnms
from mmvitcompress.compat.ops.roi_align import (
    roi_align_backward,
    roi_align_forward,
)

__all__ = [
    'get_compiler_version',
    'get_compiling_cuda_version',
    'ms_deform_attn_backward',
    'ms_deform_attn_forward',
    'nms',
    'nms_match',
    'roi_align_backward',
    'roi_align_forward',
    'softnms',
]


def get_compiler_version() -> str:
    """The compiler of the ops, as MMCV's environment report prints it."""
    return 'none (mmvitcompress stand-in)'


def get_compiling_cuda_version() -> str:
    """The CUDA version of the ops, as MMCV's environment report prints it."""
    return 'not available'


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith('_'):
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

    def unavailable(*args, **kwargs):
        raise NotImplementedError(
            f"mmcv's compiled operation '{name}' is not available: this MMCV "
            'was installed without its compiled operations and mmvitcompress '
            'stands in for nms, softnms, nms_match, roi_align and '
            'ms_deform_attn only; install a compiled mmcv (not mmcv-lite) '
            f"to use '{name}'"
        )

    unavailable.__name__ = unavailable.__qualname__ = name
    return unavailable
