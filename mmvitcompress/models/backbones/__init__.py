"""The nets as OpenMMLab backbones: arguments → arch → net."""

from mmvitcompress.models.backbones.named import (
    ATMEDeiT,
    CAITDeiT,
    CDCPDeiT,
    LifeSlimDeiT,
    ToMeViT,
)
from mmvitcompress.models.backbones.swin import CompressedSwin
from mmvitcompress.models.backbones.vit import CompressedViT

__all__ = [
    'ATMEDeiT',
    'CAITDeiT',
    'CDCPDeiT',
    'CompressedSwin',
    'CompressedViT',
    'LifeSlimDeiT',
    'ToMeViT',
]
