"""ViTs of timm in our terms."""

from mmvitcompress.checkpoints.timm.reading import (
    Source,
    compare,
    create,
    data_config,
    describe,
)
from mmvitcompress.checkpoints.timm.unsupported import unsupported

__all__ = [
    'Source',
    'compare',
    'create',
    'data_config',
    'describe',
    'unsupported',
]
