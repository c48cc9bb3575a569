"""Compressed Vision Transformers as backbones for dense prediction.

Importing this package registers its types with MMEngine, so that configs of
MMSegmentation and MMDetection find them. It imports neither of the two.

Outside of OpenMMLab, :func:`compress`, :func:`plan`, :func:`save` and
:func:`load` (see :mod:`mmvitcompress.api`) do it in one call.
"""

from importlib import import_module

from mmvitcompress import compat

compat.install()

from mmvitcompress import models  # noqa: E402
from mmvitcompress.version import __version__  # noqa: E402

_API = ('CompressedModel', 'compress', 'load', 'plan', 'save')

__all__ = ['__version__', 'models', *_API]


def __getattr__(name: str):
    # imported when first asked for: training runs don't need it
    if name in _API:
        return getattr(import_module('mmvitcompress.api'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
