"""What happens to tokens: one file for each method, behind one interface.

Plain PyTorch that knows nothing of OpenMMLab. A reduction takes and returns
``(tokens, state)``; :func:`restore` is the exact partner of all of them. To
add a method, add a file with its :class:`TokenSpec` to ``methods``.
"""

from mmvitcompress.tokens.life_predictor import LifePredictor
from mmvitcompress.tokens.method import TokenMethod
from mmvitcompress.tokens.methods import METHODS
from mmvitcompress.tokens.methods.atme import TokenMerge, TokenMerging
from mmvitcompress.tokens.methods.life import PatchSlimming, SoftPatchSlimmer
from mmvitcompress.tokens.methods.tome import TokenMatching
from mmvitcompress.tokens.restore import TokenMap, restore, restore_grid
from mmvitcompress.tokens.spec import Counts, TokenSpec
from mmvitcompress.tokens.state import TokenState

__all__ = [
    'METHODS',
    'Counts',
    'LifePredictor',
    'PatchSlimming',
    'SoftPatchSlimmer',
    'TokenMap',
    'TokenMatching',
    'TokenMerge',
    'TokenMerging',
    'TokenMethod',
    'TokenSpec',
    'TokenState',
    'restore',
    'restore_grid',
]
