"""Other people's names of tensors → timm's, which are ours."""

from mmvitcompress.checkpoints.names.eva import (
    eva_to_timm_keys,
    partners_apart,
    told_by_eva,
)
from mmvitcompress.checkpoints.names.nets import (
    HEAD_PREFIXES,
    has_pool,
    net_of,
    refuse_foreign,
    to_timm_keys,
    told_by_names,
)
from mmvitcompress.checkpoints.names.swins import (
    TABLE,
    is_swin,
    swin_to_timm_keys,
)
from mmvitcompress.checkpoints.names.vits import vit_to_timm_keys

__all__ = [
    'HEAD_PREFIXES',
    'TABLE',
    'eva_to_timm_keys',
    'has_pool',
    'is_swin',
    'net_of',
    'partners_apart',
    'refuse_foreign',
    'swin_to_timm_keys',
    'to_timm_keys',
    'told_by_eva',
    'told_by_names',
    'vit_to_timm_keys',
]
