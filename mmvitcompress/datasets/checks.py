"""Find a missing or half-unpacked data set before the training starts.

MMSegmentation and MMDetection list what is there; what is not there shows as
an empty data set, or hours later as a file that cannot be opened.
"""

import io
import json
import os.path as osp
from importlib.util import find_spec

import numpy as np
from mmengine import fileio
from PIL import Image

from mmvitcompress.errors import DataError

IGNORED = 255  # label value that every loss and metric leaves out


def converter(name: str) -> str:
    """Path of MMSegmentation's converter for a data set, as for a shell."""
    path = f'tools/dataset_converters/{name}.py'
    shipped = osp.join(osp.dirname(find_spec('mmseg').origin), '.mim', path)
    return shipped if osp.isfile(shipped) else f'MMSEGMENTATION/{path}'


class Checked:
    """What both mixins share.

    Attributes:
        SOURCE: where the data set is found and what to set then; ends every
            error message.
    """

    SOURCE = ''

    def refuse(self, problem: str) -> None:
        """Raise the DataError that tells of ``problem``."""
        raise DataError(f'{type(self).__name__}: {problem}. {self.SOURCE}')

    def require_folders(self) -> None:
        """All folders of ``data_prefix`` must exist."""
        for key, folder in self.data_prefix.items():
            if not fileio.isdir(folder, backend_args=self.backend_args):
                self.refuse(f'no folder {folder} (data_prefix.{key})')

    def list_files(self, folder: str, suffix: str | None = None) -> set[str]:
        """Paths of all files in ``folder`` and below."""
        names = fileio.list_dir_or_file(
            folder,
            list_dir=False,
            suffix=suffix,
            recursive=True,
            backend_args=self.backend_args,
        )
        return {osp.join(folder, name) for name in names}

    def require_files(self, folder: str, paths: list[str]) -> None:
        """All ``paths`` must lie in ``folder``, which is listed once."""
        there = self.list_files(folder)
        missing = [path for path in paths if path not in there]
        if missing:
            self.refuse(
                f'{len(missing)} of {len(paths)} files are missing in '
                f'{folder}, the first being {missing[0]}'
            )


class CheckedPairs(Checked):
    """Mixin for a ``BaseSegDataset``: images and label maps must pair up.

    Attributes:
        LABELS: number of values, from 0, that a label map may hold besides
            255.
    """

    LABELS = 0

    def load_data_list(self) -> list[dict]:
        """List all pairs.

        Raises:
            DataError: if a folder is missing, holds no image or lacks label
                maps, if label maps lack their image (where no ``ann_file``
                chooses among them), or if the first label map is of another
                kind.
        """
        self.require_folders()
        pairs = super().load_data_list()
        folder = self.data_prefix['img_path']
        if not pairs:
            self.refuse(f'no *{self.img_suffix} in {folder}')
        if self.ann_file:
            self.require_files(folder, [pair['img_path'] for pair in pairs])
        if 'seg_map_path' in pairs[0]:
            maps = [pair['seg_map_path'] for pair in pairs]
            self.require_files(self.data_prefix['seg_map_path'], maps)
            if not self.ann_file:
                self.require_images(maps)
            self.require_label_map(maps[0])
        return pairs

    def require_images(self, maps: list[str]) -> None:
        """There must be no other label maps than ``maps``."""
        folder = self.data_prefix['seg_map_path']
        alone = self.list_files(folder, self.seg_map_suffix) - {*maps}
        if alone:
            self.refuse(
                f'{len(alone)} label maps in {folder} have no image in '
                f'{self.data_prefix["img_path"]}, the first being '
                f'{min(alone)}'
            )

    def require_label_map(self, path: str) -> None:
        """The file must hold class indices: no colours, no other classes."""
        content = fileio.get(path, backend_args=self.backend_args)
        try:
            labels = np.asarray(Image.open(io.BytesIO(content)))
        except OSError as error:
            self.refuse(f'{path} is no readable image ({error})')
        if labels.ndim != 2:
            self.refuse(
                f'{path} must be a map of class indices, but got an image of '
                f'shape {labels.shape}'
            )
        odd = np.setdiff1d(labels, [*range(self.LABELS), IGNORED])
        if len(odd):
            self.refuse(
                f'{path} must hold labels 0..{self.LABELS - 1} or {IGNORED}, '
                f'but got {odd[0]}'
            )


class CheckedCoco(Checked):
    """Mixin for mmdet's ``CocoDataset``: JSON and images must agree."""

    def load_data_list(self) -> list[dict]:
        """List all images with their instances.

        Raises:
            DataError: if the JSON or images are missing, if the JSON is cut
                off, or if it lacks a class.
        """
        if not fileio.isfile(self.ann_file, backend_args=self.backend_args):
            self.refuse(f'no file {self.ann_file} (ann_file)')
        self.require_folders()
        try:
            images = super().load_data_list()
        except json.JSONDecodeError as error:
            self.refuse(f'{self.ann_file} is no whole JSON file ({error})')
        if not images:
            self.refuse(f'no images in {self.ann_file}')
        classes = self.metainfo['classes']
        if len(self.cat_ids) != len(classes):
            self.refuse(
                f'{self.ann_file} knows {len(self.cat_ids)} of the '
                f'{len(classes)} classes {", ".join(classes)}'
            )
        paths = [image['img_path'] for image in images]
        self.require_files(self.data_prefix['img'], paths)
        return images
