"""Nets, backbones, necks, heads and losses.

What is registered for OpenMMLab is imported when it is first asked for: the
nets themselves need torch and timm alone.
"""

from importlib import import_module

_HOMES = {
    'ATMEDeiT': 'backbones',
    'BatchDiceLoss': 'losses',
    'CAITDeiT': 'backbones',
    'CDCPDeiT': 'backbones',
    'ClassTokenHead': 'classifier',
    'Classifier': 'classifier',
    'CompressedSwin': 'backbones',
    'CompressedViT': 'backbones',
    'FeatureDistiller': 'heads',
    'ImageClassifier': 'heads',
    'LifeSlimDeiT': 'backbones',
    'MixupPreprocessor': 'losses',
    'StructureLoss': 'losses',
    'Swin': 'swin',
    'TimmClassifier': 'losses',
    'ToMeViT': 'backbones',
    'UnmergeGuided': 'necks',
    'UnmergePyramid': 'necks',
    'UnmergeUpsample': 'necks',
    'ViT': 'vit',
}

__all__ = [*_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)
