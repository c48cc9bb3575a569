"""Data sets. Those for mmseg and mmdet are registered where these are."""

from importlib import import_module
from importlib.util import find_spec

from mmvitcompress.datasets.classification import (
    TimmDataset,
    TimmIterableDataset,
)
from mmvitcompress.datasets.samplers import RepeatedAugSampler
from mmvitcompress.registry import DATASETS
from mmvitcompress.utils.image_folder import UnlabelledImages

__all__ = [
    'RepeatedAugSampler',
    'TimmDataset',
    'TimmIterableDataset',
    'UnlabelledImages',
]

DATASETS.register_module(module=UnlabelledImages)

for _host, _module in (
    ('mmseg', 'segmentation'),
    ('mmseg', 'medical'),
    ('mmdet', 'detection'),
):
    if find_spec(_host) is not None:
        import_module(f'{__name__}.{_module}')
