"""What models learn from: losses, teachers, mixed images."""

from mmvitcompress.models.losses.distillation import TimmClassifier
from mmvitcompress.models.losses.mixup import MixupPreprocessor
from mmvitcompress.models.losses.segmentation import (
    BatchDiceLoss,
    StructureLoss,
)

__all__ = [
    'BatchDiceLoss',
    'MixupPreprocessor',
    'StructureLoss',
    'TimmClassifier',
]
