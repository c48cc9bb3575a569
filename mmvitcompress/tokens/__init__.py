"""What happens to tokens: one file for each method, behind one interface.

Plain PyTorch that knows nothing of OpenMMLab. A reduction takes and returns
``(tokens, state)``; :func:`restore` is the exact partner of all of them. To
add a method, add a file with its :class:`TokenSpec` to this folder.
"""

from importlib import import_module
from pkgutil import iter_modules

from mmvitcompress.tokens.atme import TokenMerge, TokenMerging
from mmvitcompress.tokens.life import PatchSlimming, SoftPatchSlimmer
from mmvitcompress.tokens.life_predictor import LifePredictor
from mmvitcompress.tokens.method import TokenMethod
from mmvitcompress.tokens.restore import TokenMap, restore, restore_grid
from mmvitcompress.tokens.spec import Counts, TokenSpec
from mmvitcompress.tokens.state import TokenState
from mmvitcompress.tokens.tome import TokenMatching

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

for _module in iter_modules(__path__):
    import_module(f'{__name__}.{_module.name}')

METHODS: dict[str, type[TokenSpec]] = {
    spec.key: spec
    for spec in sorted(
        TokenSpec.__subclasses__(), key=lambda spec: spec.__module__
    )
}
"""Specifications by their keys, in the order in which methods act: that of
their files' names."""
