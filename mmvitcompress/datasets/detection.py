"""Data sets for MMDetection."""

from typing import ClassVar

from mmdet.datasets import CocoDataset

from mmvitcompress.datasets.checks import CheckedCoco
from mmvitcompress.datasets.palettes import (
    DIGIT_CLASSES,
    DIGIT_PALETTE,
    DIGITS_SOURCE,
    NUCLEI_SOURCE,
    NUCLEUS_PALETTE,
)
from mmvitcompress.datasets.splits import belongs, check_share
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


@DATASETS.register_module()
class NucleiDataset(CheckedCoco, CocoDataset):
    """Cell nuclei of the 2018 Data Science Bowl (BBBC038), in COCO form.

    There is one JSON for all images, so that a ``CocoMetric`` must not be
    given it: without an ``ann_file`` it takes the truth from the samples,
    which the test pipeline packs as ``instances``.

    Args:
        hold_out: Share of the images that is set aside for validation, by a
            hash of their file names, so that it is always the same. Defaults
            to 0.
        held_out: Whether to read the images that are set aside, and not the
            others. Defaults to False.
        **kwargs: Those of ``CocoDataset``.
    """

    METAINFO: ClassVar[dict] = dict(
        classes=('nucleus',), palette=NUCLEUS_PALETTE
    )
    SOURCE = NUCLEI_SOURCE

    def __init__(
        self, *args, hold_out: float = 0.0, held_out: bool = False, **kwargs
    ):
        check_share(hold_out, held_out)
        self.split = hold_out, held_out
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List this side's images with their instances.

        Raises:
            DataError: see ``CheckedCoco``.
        """
        images = super().load_data_list()
        return [i for i in images if belongs(i['img_path'], *self.split)]
