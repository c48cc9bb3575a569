"""Volumes of medical data sets, in the layouts in which they are given away.

A layout is a function that lists the :class:`Case` objects below a folder, or
nothing where the folder is laid out otherwise.
"""

import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

from mmvitcompress.errors import DataError, DependencyError

# of the 100 training patients of ACDC, those that TransUNet's split, which
# CASCADE shares, keeps for validation and for testing; the others train
ACDC_VAL = (19, 21, 29, 33, 41, 50, 61, 71, 76, 80)
ACDC_TEST = (
    *(2, 3, 8, 9, 12, 14, 17, 24, 42, 48, 49, 53, 55, 64, 67, 79, 81, 88),
    *(92, 95),
)
IMAGE_KEYS = ('image', 'img')
LABEL_KEYS = ('label', 'mask')


@dataclass
class Case:
    """One volume.

    Attributes:
        name: of the case, such as 'case0008'.
        split: 'train', 'val' or 'test'.
        slices: readers of its slices in their order; each gives some slices
            as an image and a label array of shape (H, W) or (D, H, W).
    """

    name: str
    split: str
    slices: list[Callable[[], tuple[np.ndarray, np.ndarray]]]

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Image (float32) and labels (int64), both of shape (D, H, W).

        Raises:
            DataError: if they do not fit each other.
        """
        images, labels = [], []
        for read in self.slices:
            image, label = (np.asarray(array) for array in read())
            if image.shape != label.shape or image.ndim not in (2, 3):
                raise DataError(
                    f'case {self.name}: image and labels must both be '
                    f'(height, width) or (slices, height, width), but got '
                    f'{image.shape} and {label.shape}; fetch it again'
                )
            if image.ndim == 2:
                image, label = image[None], label[None]
            images.extend(image.astype(np.float32))
            labels.extend(np.rint(label).astype(np.int64))
        if len({image.shape for image in images}) > 1:
            raise DataError(
                f'slices of case {self.name} differ in size; fetch it again'
            )
        return np.stack(images), np.stack(labels)


def _require(package: str) -> ModuleType:
    try:
        return import_module(package)
    except ImportError as error:
        raise DependencyError(
            f'this layout of the data needs the package {package!r}: install '
            f'it with pip install {package}'
        ) from error


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels of a ``.npz`` file."""
    try:
        with np.load(path) as content:
            return _pick(content, path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f'{path} cannot be read ({error}); fetch it again'
        ) from error


def read_h5(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels of an HDF5 file.

    Raises:
        DependencyError: if h5py isn't installed.
    """
    h5py = _require('h5py')
    try:
        with h5py.File(path, 'r') as content:
            return _pick(content, path)
    except OSError as error:
        raise DataError(
            f'{path} cannot be read ({error}); fetch it again'
        ) from error


def _pick(content, path: Path) -> tuple[np.ndarray, np.ndarray]:
    arrays = []
    for keys in (IMAGE_KEYS, LABEL_KEYS):
        key = next((key for key in keys if key in content), None)
        if key is None:
            raise DataError(
                f'{path} must hold an array {" or ".join(keys)}, but holds '
                f'{", ".join(sorted(content)) or "nothing"}'
            )
        arrays.append(np.asarray(content[key]))
    return arrays[0], arrays[1]


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels of ``x.nii.gz`` and ``x_gt.nii.gz``: (D, H, W).

    Raises:
        DependencyError: if nibabel isn't installed.
    """
    nibabel = _require('nibabel')
    arrays = []
    for file in (path, _truth(path)):
        try:
            array = np.asarray(nibabel.load(file).dataobj)
        except (OSError, EOFError, ValueError) as error:
            raise DataError(
                f'{file} cannot be read ({error}); fetch it again'
            ) from error
        arrays.append(array.T)  # NIfTI is (x, y, z)
    return arrays[0], arrays[1]


def _truth(path: Path) -> Path:
    stem, dot, suffixes = path.name.partition('.')
    return path.with_name(f'{stem}_gt{dot}{suffixes}')


def _split_of(patient: int) -> str:
    if patient in ACDC_TEST:
        return 'test'
    return 'val' if patient in ACDC_VAL else 'train'


def _patients(paths: list[Path], read: Callable) -> Iterator[Case]:
    """Cases of files named ``patient<number>_frame<number>``."""
    pattern = re.compile(r'patient(\d+)_frame\d+')
    for path in sorted(paths):
        match = pattern.match(path.name)
        # 101 to 150 are the challenge's own test set
        if match and int(match[1]) <= 100:
            split = _split_of(int(match[1]))
            yield Case(match[0], split, [lambda p=path: read(p)])


def acdc_nifti(root: Path) -> list[Case]:
    """As the challenge gives it away: ``training/patient001/
    patient001_frame01.nii.gz`` and ``…_gt.nii.gz``."""
    paths = [
        path
        for path in root.rglob('patient*_frame*.nii*')
        if path.name.endswith(('.nii', '.nii.gz')) and '_gt.' not in path.name
    ]
    cases = list(_patients(paths, read_nifti))
    known = [path for path in paths if _truth(path).is_file()]
    if cases and len(known) < len(paths):
        missing = next(_truth(p) for p in paths if p not in known)
        raise DataError(
            f'{len(paths) - len(known)} of {len(paths)} volumes lack labels, '
            f'the first being {missing}; unpack ACDC anew'
        )
    return cases


def acdc_h5(root: Path) -> list[Case]:
    """One HDF5 file for each volume: ``patient001_frame01.h5``."""
    paths = [
        path
        for path in root.rglob('patient*_frame*.h5')
        if 'slice' not in path.name
    ]
    return list(_patients(paths, read_h5))


def acdc_npz(root: Path) -> list[Case]:
    """As TransUNet's split is given away: ``train`` and ``valid`` with
    ``case_001_sliceED_0.npz``, ``test`` with ``case_002_volume_ED.npz``."""
    pattern = re.compile(r'case_(\d+)_(?:slice|volume_?)(ED|ES)(?:_(\d+))?')
    names = dict(train='train', valid='val', test='test')
    return _grouped(root, names, '*.npz', pattern, read_npz)


def synapse_transunet(root: Path) -> list[Case]:
    """As TransUNet gives it away: ``train_npz`` with
    ``case0005_slice000.npz``, ``test_vol_h5`` with ``case0001.npy.h5``."""
    pattern = re.compile(r'(case\d+)()(?:_slice(\d+))?')
    slices = _grouped(
        root, dict(train_npz='train'), '*.npz', pattern, read_npz
    )
    volumes = _grouped(root, dict(test_vol_h5='val'), '*.h5', pattern, read_h5)
    return slices + volumes


def _grouped(
    root: Path,
    folders: dict[str, str],
    files: str,
    pattern: re.Pattern,
    read: Callable,
) -> list[Case]:
    """Cases whose slices are files of their own, or whole volumes.

    Args:
        root: where the folders lie.
        folders: their names, and the splits that they hold.
        files: glob pattern of the files.
        pattern: two groups that name the case, one with the slice's number.
        read: reads a file.
    """
    cases = []
    for folder, split in folders.items():
        found: dict[str, list[tuple[int, Path]]] = defaultdict(list)
        for path in (root / folder).glob(files):
            match = pattern.match(path.name)
            if match:
                name = match[1]
                if match[2]:
                    name = f'patient{int(name):03}_{match[2]}'
                found[name].append((int(match[3] or 0), path))
        for name, paths in sorted(found.items()):
            readers = [lambda p=path: read(p) for _, path in sorted(paths)]
            cases.append(Case(name, split, readers))
    return cases
