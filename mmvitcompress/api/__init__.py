"""Compressing a ViT of timm in one call, without OpenMMLab's configs.

``compress`` makes a :class:`CompressedModel`, a plain ``nn.Module``, of a timm
model; ``plan`` says where to merge and how much to prune for a target;
``distill`` trains the result without labels; what ``save`` writes, ``load``
reads, and ``backbone.checkpoint`` of every config.
"""

from mmvitcompress.api.compressing import compress
from mmvitcompress.api.distilling import distill
from mmvitcompress.api.files import load, save
from mmvitcompress.api.model import CompressedModel
from mmvitcompress.api.planning import plan

__all__ = ['CompressedModel', 'compress', 'distill', 'load', 'plan', 'save']
