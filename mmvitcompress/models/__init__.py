"""Backbones, necks and the classifier."""

from mmvitcompress.models.backbones import (
    ATMEDeiT,
    CAITDeiT,
    CDCPDeiT,
    CompressedViT,
    LifeSlimDeiT,
)
from mmvitcompress.models.classifier import ImageClassifier
from mmvitcompress.models.necks import UnmergeUpsample
from mmvitcompress.models.vit import ViT

__all__ = [
    'ATMEDeiT',
    'CAITDeiT',
    'CDCPDeiT',
    'CompressedViT',
    'ImageClassifier',
    'LifeSlimDeiT',
    'UnmergeUpsample',
    'ViT',
]
