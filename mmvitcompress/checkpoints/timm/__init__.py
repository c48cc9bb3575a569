"""What a ViT of timm is in our terms, or why it can't be put into them."""

from mmvitcompress.checkpoints.timm.describing import (
    Source,
    compare,
    create,
    data_config,
    describe,
)
from mmvitcompress.checkpoints.timm.refusing import unsupported

__all__ = [
    'Source',
    'compare',
    'create',
    'data_config',
    'describe',
    'unsupported',
]
