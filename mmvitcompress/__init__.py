"""Compressed Vision Transformers as backbones for dense prediction.

Configs of MMSegmentation and MMDetection find our types once this package is
imported. It imports no other part of OpenMMLab, MMEngine included, before
something needs it.

Outside of OpenMMLab, :func:`compress`, :func:`plan`, :func:`distill`,
:func:`save` and :func:`load` (see :mod:`mmvitcompress.api`) do it in one call.
"""

from importlib import import_module

from mmvitcompress import compat
from mmvitcompress.version import __version__

_API = ('CompressedModel', 'compress', 'distill', 'load', 'plan', 'save')

__all__ = ['__version__', *_API]

compat.watch()


def __getattr__(name: str):
    if name in _API:
        return getattr(import_module('mmvitcompress.api'), name)
    if name == 'models':
        return import_module('mmvitcompress.models')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
