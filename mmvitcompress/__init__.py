"""Compressed Vision Transformers as backbones for dense prediction.

Importing this package registers its types with MMEngine, so that configs of
MMSegmentation and MMDetection find them. It imports neither of the two.
"""

from mmvitcompress import compat

compat.install()

from mmvitcompress import models  # noqa: E402
from mmvitcompress.version import __version__  # noqa: E402

__all__ = ['__version__', 'models']
