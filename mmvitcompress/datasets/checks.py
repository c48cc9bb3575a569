"""Find a missing or half-unpacked data set before the training starts.

MMSegmentation and MMDetection list what is there; what is not there shows as
an empty data set, or hours later as a file that cannot be opened.
"""

import os.path as osp
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from mmengine import fileio

from mmvitcompress.datasets.label_maps import check_labels, read_labels
from mmvitcompress.errors import ConfigError, DataError
from mmvitcompress.utils.images import SUFFIXES

LOSSLESS = ('.png', '.tif', '.tiff', '.bmp')


def converter(name: str) -> str:
    """Path of MMSegmentation's converter for a data set, as for a shell."""
    path = f'tools/dataset_converters/{name}.py'
    shipped = osp.join(osp.dirname(find_spec('mmseg').origin), '.mim', path)
    return shipped if osp.isfile(shipped) else f'MMSEGMENTATION/{path}'


class Checked:
    """What checked data sets of both libraries share.

    Attributes:
        SOURCE: Where the data set is found and what to set then; ends every
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

    def list_files(self, folder: str) -> list[str]:
        """Files in ``folder`` and below, relative to it, by name."""
        args = dict(list_dir=False, backend_args=self.backend_args)
        names = fileio.list_dir_or_file(folder, recursive=True, **args)
        return sorted(names)

    def require_files(
        self, folder: str, names: Sequence[str], there, suffix: str = ''
    ) -> None:
        """All ``names`` must be among those that are ``there``."""
        missing = [name for name in names if name not in there]
        if missing:
            self.refuse(
                f'{len(missing)} of {len(names)} files are missing in '
                f'{folder}, the first being '
                f'{osp.join(folder, missing[0] + suffix)}'
            )


class CheckedPairs(Checked):
    """Mixin for a ``BaseSegDataset``: images and label maps must pair up.

    Args:
        img_suffix: How names of images end. Defaults to None: as an image's
            may, in capitals or not, also in one folder differently.
        seg_map_suffix: How names of label maps end, after what images are
            called. Defaults to '.png'; None for any form without loss.
        metainfo: As mmseg has it. Defaults to what the class itself knows.
        pipeline: As mmseg has it; label maps are checked as they are loaded.
        **kwargs: Those of ``BaseSegDataset``.

    Raises:
        ConfigError: If classes are not named one by one, or are too many.
        DataError: If a folder is missing, holds no image or lacks label maps,
            if label maps lack their image (where no ``ann_file`` chooses
            among them), if two images share one, or if the first label map
            is of another kind.
    """

    def __init__(
        self,
        img_suffix: str | None = None,
        seg_map_suffix: str | None = '.png',
        metainfo: dict | None = None,
        pipeline: Sequence[dict | Callable] = (),
        **kwargs,
    ):
        if metainfo and 'classes' in metainfo:
            classes = list_classes(metainfo['classes'])
            metainfo = {**metainfo, 'classes': classes}
        super().__init__(
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            metainfo=metainfo,
            pipeline=[_checked(step) for step in pipeline],
            **kwargs,
        )

    @property
    def labels(self) -> int:
        """Values, from 0, that a label map may hold besides 255."""
        classes = self.METAINFO.get('classes') or self._metainfo['classes']
        named = 1 + max(self.label_map or (), default=-1)
        return max(len(classes), named) + self.reduce_zero_label

    def load_data_list(self) -> list[dict]:
        """List all pairs by name; raises what the class does."""
        if self.labels > 255:
            raise ConfigError(
                f'{type(self).__name__} must have at most 255 labels, since '
                f'255 is ignored, but got {self.labels}; join classes'
            )
        self.require_folders()
        folder = self.data_prefix['img_path']
        images = self._by_stem(folder, self.img_suffix, SUFFIXES)
        if not images:
            endings = [self.img_suffix] if self.img_suffix else SUFFIXES
            self.refuse(f'no *{", *".join(endings)} in {folder}')
        stems = list(images)
        if self.ann_file:
            lines = fileio.get_text(
                self.ann_file, backend_args=self.backend_args
            ).splitlines()
            stems = [line.strip() for line in lines if line.strip()]
            if not stems:
                self.refuse(f'no names in {self.ann_file} (ann_file)')
            self.require_files(folder, stems, images, self.img_suffix or '.*')
        maps = {}
        where = self.data_prefix.get('seg_map_path')
        if where is not None:
            maps = self._by_stem(where, self.seg_map_suffix, LOSSLESS)
            suffix = self.seg_map_suffix or '.png'
            self.require_files(where, stems, maps, suffix)
            alone = sorted(maps.keys() - images.keys())
            if alone and not self.ann_file:
                self.refuse(
                    f'{len(alone)} label maps in {where} have no image in '
                    f'{folder}, the first being {maps[alone[0]]}'
                )
            self.require_label_map(maps[stems[0]])
        return [
            dict(
                img_path=images[stem],
                **(dict(seg_map_path=maps[stem]) if maps else {}),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                labels=self.labels,
                seg_fields=[],
            )
            for stem in stems
        ]

    def _by_stem(
        self, folder: str, suffix: str | None, suffixes: Sequence[str]
    ) -> dict[str, str]:
        """Paths of a folder's files of one kind, by their names without it."""
        endings = tuple(suffixes) if suffix is None else (suffix.lower(),)
        found = {}
        for name in self.list_files(folder):
            ending = next(filter(name.lower().endswith, endings), None)
            if ending is None:
                continue
            stem, path = name[: -len(ending)], osp.join(folder, name)
            if stem in found:
                self.refuse(
                    f'{found[stem]} and {path} would be one pair; rename or '
                    'remove one'
                )
            found[stem] = path
        return found

    def require_label_map(self, path: str) -> None:
        """The file must hold class indices: no colours, no other classes."""
        content = fileio.get(path, backend_args=self.backend_args)
        try:
            check_labels(read_labels(content, path), path, self.labels)
        except DataError as error:
            self.refuse(str(error))


def _checked(step):
    """A pipeline's step, or ours in place of mmseg's ``LoadAnnotations``."""
    if (
        isinstance(step, dict)
        and step.get('type') in ('LoadAnnotations', 'mmseg.LoadAnnotations')
        and step.get('imdecode_backend', 'pillow') == 'pillow'
    ):
        return {**step, 'type': 'mmvitcompress.LoadCheckedAnnotations'}
    return step


def list_classes(classes: str | Sequence[str]) -> list[str]:
    """Names of classes: themselves, or the lines of the file that is named.

    Raises:
        ConfigError: If they are neither.
    """
    if isinstance(classes, str) and osp.isfile(classes):
        with open(classes, encoding='utf-8') as file:
            return [line.strip() for line in file if line.strip()]
    if not isinstance(classes, list | tuple) or not all(
        isinstance(name, str) for name in classes
    ):
        raise ConfigError(
            'metainfo.classes must be a tuple of names or a file of them, '
            f'but got {classes!r}; write ({str(classes)!r},) for a single one'
        )
    return list(classes)
