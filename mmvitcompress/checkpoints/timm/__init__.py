"""ViTs of timm in our terms."""

from mmvitcompress.checkpoints.timm.reading import (
    Source,
    compare,
    create,
    data_config,
    describe,
)

__all__ = ['Source', 'compare', 'create', 'data_config', 'describe']
