"""Compressed Vision Transformers as backbones for dense prediction."""

from mmvitcompress.version import __version__

__all__ = ['__version__']
