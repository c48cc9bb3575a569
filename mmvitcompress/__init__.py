"""Compressed Vision Transformers as backbones for dense prediction.

Importing this package registers its types with MMEngine, so that configs of
MMSegmentation and MMDetection find them. It imports neither of the two.
"""

from mmvitcompress import models
from mmvitcompress.version import __version__

__all__ = ['__version__', 'models']
