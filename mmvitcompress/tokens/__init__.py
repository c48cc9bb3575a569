"""What happens to tokens: merging (ATME), slimming (life regression).

Plain PyTorch that knows nothing of OpenMMLab. A reduction takes and returns
``(tokens, state)``; :func:`restore` is the exact partner of all of them.
"""

from mmvitcompress.tokens.atme import TokenMerge, unmerge
from mmvitcompress.tokens.life_regression import SoftPatchSlimmer
from mmvitcompress.tokens.restore import (
    TokenMap,
    restore,
    to_map,
    unslim,
)
from mmvitcompress.tokens.slimming import LifePredictor, PatchSlimmer
from mmvitcompress.tokens.specs import PatchSlimming, TokenMerging
from mmvitcompress.tokens.state import TokenState

__all__ = [
    'LifePredictor',
    'PatchSlimmer',
    'PatchSlimming',
    'SoftPatchSlimmer',
    'TokenMap',
    'TokenMerge',
    'TokenMerging',
    'TokenState',
    'restore',
    'to_map',
    'unmerge',
    'unslim',
]
