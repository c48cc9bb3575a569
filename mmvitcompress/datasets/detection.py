"""Data sets for MMDetection."""

from typing import ClassVar

from mmdet.datasets import CocoDataset

from mmvitcompress.datasets.checks import CheckedCoco
from mmvitcompress.datasets.palettes import (
    DIGIT_CLASSES,
    DIGIT_PALETTE,
    DIGITS_SOURCE,
)
from mmvitcompress.registry import DATASETS


@DATASETS.register_module()
class CheckedCocoDataset(CheckedCoco, CocoDataset):
    """mmdet's ``CocoDataset``, checked for completeness first."""

    SOURCE = (
        'Unpack train2017, val2017 and annotations of https://cocodataset.org '
        'into one folder and set data_root, in the configs of this project '
        'COCO_ROOT, to it'
    )


@DATASETS.register_module()
class DigitInstancesDataset(CheckedCoco, CocoDataset):
    """Scenes of handwritten digits with a box and a mask for each digit."""

    METAINFO: ClassVar[dict] = dict(
        classes=DIGIT_CLASSES, palette=DIGIT_PALETTE
    )
    SOURCE = DIGITS_SOURCE
