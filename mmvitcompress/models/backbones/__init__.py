"""The nets as OpenMMLab backbones: arguments → arch → net."""

from mmvitcompress.models.backbones.swin import CompressedSwin
from mmvitcompress.models.backbones.vit import (
    ATMEDeiT,
    CAITDeiT,
    CDCPDeiT,
    CompressedViT,
    LifeSlimDeiT,
    ToMeViT,
)

__all__ = [
    'ATMEDeiT',
    'CAITDeiT',
    'CDCPDeiT',
    'CompressedSwin',
    'CompressedViT',
    'LifeSlimDeiT',
    'ToMeViT',
]
