"""Backbones, necks and the classifier."""

from mmvitcompress.models.backbones import (
    ATMEDeiT,
    CAITDeiT,
    CDCPDeiT,
    CompressedViT,
    LifeSlimDeiT,
)
from mmvitcompress.models.classifier import ImageClassifier
from mmvitcompress.models.distillation import TimmClassifier
from mmvitcompress.models.heads import ClassTokenHead
from mmvitcompress.models.losses import BatchDiceLoss, StructureLoss
from mmvitcompress.models.mixup import MixupPreprocessor
from mmvitcompress.models.necks import UnmergeUpsample
from mmvitcompress.models.pyramid import UnmergePyramid
from mmvitcompress.models.swin import Swin
from mmvitcompress.models.swin_backbone import CompressedSwin
from mmvitcompress.models.tome import ToMeViT
from mmvitcompress.models.vit import ViT

__all__ = [
    'ATMEDeiT',
    'BatchDiceLoss',
    'CAITDeiT',
    'CDCPDeiT',
    'ClassTokenHead',
    'CompressedSwin',
    'CompressedViT',
    'ImageClassifier',
    'LifeSlimDeiT',
    'MixupPreprocessor',
    'StructureLoss',
    'Swin',
    'TimmClassifier',
    'ToMeViT',
    'UnmergePyramid',
    'UnmergeUpsample',
    'ViT',
]
