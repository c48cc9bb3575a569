"""Data sets for MMDetection."""

import json
import os.path as osp
from typing import ClassVar

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmengine import fileio
from pycocotools import mask

from mmvitcompress.datasets.checks import Checked, list_classes
from mmvitcompress.datasets.palettes import (
    DIGIT_CLASSES,
    DIGIT_PALETTE,
    DIGITS_SOURCE,
    NUCLEI_SOURCE,
    NUCLEUS_PALETTE,
)
from mmvitcompress.errors import DataError
from mmvitcompress.registry import DATASETS
from mmvitcompress.utils.annotations import described, fits
from mmvitcompress.utils.cli import shortened
from mmvitcompress.utils.splits import belongs, check_share

# what mmdet and pycocotools take from every entry without asking
NEEDED = {
    'images': dict(id=int, file_name=str, height=float, width=float),
    'annotations': dict(
        **dict.fromkeys(('id', 'image_id', 'category_id'), int),
        **dict(bbox=tuple[(float,) * 4], area=float, iscrowd=int),
    ),
    'categories': dict(id=int, name=str),
}


class _CheckedCOCO(COCO):
    """Says what is wrong with a file instead of failing at a key."""

    def createIndex(self) -> None:
        for table, keys in NEEDED.items():
            entries = self.dataset.get(table)
            if not isinstance(entries, list):
                raise DataError(f'it has no list of {table}; add it')
            for place, entry in enumerate(entries):
                where = f'{table}[{place}]'
                if not isinstance(entry, dict):
                    raise DataError(f'{where} must be a dict, but got {entry}')
                for key, hint in keys.items():
                    value = entry.get(key)
                    if not fits(value, hint):
                        raise DataError(
                            f'{key} of {where} must be {described(hint)}, but '
                            f'got {value!r}; every entry of {table} needs '
                            f'{", ".join(keys)}'
                        )
        super().createIndex()


def _is_mask(shape: object, size: list[int]) -> bool:
    """Whether mmdet can make a mask (height, width) of a segmentation; it
    leaves out polygons of less than three points itself."""
    if not isinstance(shape, dict):
        return fits(shape, list[list[float]])
    if shape.get('size') != size:
        return False
    if isinstance(shape.get('counts'), str):
        try:
            return mask.decode(shape).shape == tuple(size)
        except (TypeError, ValueError):
            return False
    counts = shape.get('counts')
    return fits(counts, list[int]) and sum(counts) == size[0] * size[1]


class CheckedCoco(Checked):
    """Mixin for mmdet's ``CocoDataset``: JSON and images must agree.

    Raises:
        ConfigError: If classes are not named one by one.
        DataError: If the JSON or images are missing, if the JSON is cut off,
            or if it lacks a class, what every entry needs, or masks where
            the pipeline loads them.
    """

    COCOAPI = _CheckedCOCO

    def __init__(self, *args, metainfo: dict | None = None, **kwargs):
        if metainfo and 'classes' in metainfo:
            classes = list_classes(metainfo['classes'])
            metainfo = {**metainfo, 'classes': classes}
        super().__init__(*args, metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List all images with their instances; raises what the class does."""
        if not fileio.isfile(self.ann_file, backend_args=self.backend_args):
            self.refuse(f'no file {self.ann_file} (ann_file)')
        self.require_folders()
        try:
            images = super().load_data_list()
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            self.refuse(f'{self.ann_file} is no whole JSON file ({error})')
        except AssertionError as error:  # pycocotools' and mmdet's checks
            self.refuse(
                f'{self.ann_file} cannot be used ({error}); correct it'
            )
        except DataError as error:
            self.refuse(f'{self.ann_file} cannot be used: {error}')
        if not images:
            self.refuse(f'no images in {self.ann_file}')
        classes = self.metainfo['classes']
        if len(self.cat_ids) != len(classes):
            self.refuse(
                f'{self.ann_file} knows {len(self.cat_ids)} of the '
                f'{len(classes)} classes {", ".join(classes)}'
            )
        if any(getattr(t, 'with_mask', 0) for t in self.pipeline.transforms):
            self._require_masks(images)
        folder = self.data_prefix['img']
        there = {osp.join(folder, name) for name in self.list_files(folder)}
        paths = [image['img_path'] for image in images]
        self.require_files(folder, paths, there)
        return images

    def _require_masks(self, images: list[dict]) -> None:
        for image in images:
            if not all('mask' in each for each in image['instances']):
                self.refuse(
                    f'{self.ann_file} has instances without segmentation, '
                    f'the first in {image["img_path"]}, but the pipeline '
                    'loads masks: add them, or set with_mask=False and take '
                    'a model without masks'
                )
            size = [int(image['height']), int(image['width'])]
            for each in image['instances']:
                if not _is_mask(each['mask'], size):
                    self.refuse(
                        f'{self.ann_file} has a segmentation for '
                        f'{image["img_path"]} that must be polygons of finite '
                        f'numbers, or an RLE of {size}, but got '
                        f'{shortened(str(each["mask"]))}'
                    )


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
            hash of their file names, so that it is always the same.
        held_out: Whether to read the images that are set aside, and not the
            others.
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
        """List this side's images with their instances."""
        images = super().load_data_list()
        return [i for i in images if belongs(i['img_path'], *self.split)]
