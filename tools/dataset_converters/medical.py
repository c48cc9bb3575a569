"""Bring medical data sets into mmseg's form: images and label maps as PNG."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from dataset_converters.folders import replacing
from dataset_converters.medical_volumes import (
    Case,
    acdc_h5,
    acdc_nifti,
    acdc_npz,
    synapse_transunet,
)
from PIL import Image

from mmvitcompress.errors import DataError
from mmvitcompress.utils.images import files_in, read_image

# folders of PraNet's collection, what they are called here, and how many
# images they hold
POLYPS = {
    'TrainDataset': ('train', 1450),
    'TestDataset/Kvasir': ('test/kvasir', 100),
    'TestDataset/CVC-ClinicDB': ('test/clinicdb', 62),
    'TestDataset/CVC-ColonDB': ('test/colondb', 380),
    'TestDataset/ETIS-LaribPolypDB': ('test/etis', 196),
    'TestDataset/CVC-300': ('extra/cvc300', 60),
}
POLYP_OPTIONAL = ('TestDataset/CVC-300',)  # not among CAIT's four

VOLUMES: dict[str, tuple[tuple[Callable[[Path], list[Case]], ...], int, str]]
VOLUMES = {
    'acdc': (
        (acdc_nifti, acdc_h5, acdc_npz),
        4,
        'training/patient001/patient001_frame01.nii.gz with its …_gt.nii.gz, '
        'as https://www.creatis.insa-lyon.fr/Challenge/acdc gives them away; '
        'patient001_frame01.h5; or train/case_001_sliceED_0.npz, valid/… and '
        'test/case_002_volume_ED.npz, as TransUNet and CASCADE use them',
    ),
    'synapse': (
        (synapse_transunet,),
        9,
        'train_npz/case0005_slice000.npz and test_vol_h5/case0001.npy.h5, as '
        'https://github.com/Beckschen/TransUNet gives them away; for the '
        'NIfTI files of https://www.synapse.org/#!Synapse:syn3193805 use '
        "mmseg's tools/dataset_converters/synapse.py",
    ),
}
# how many volumes there are
SPLITS = {
    'acdc': {'train': 140, 'val': 20, 'test': 40},
    'synapse': {'train': 18, 'val': 12},
}

Progress = Callable[[str], None]


def _quiet(message: str) -> None:
    """Report to nobody."""


def convert_volumes(
    dataset: str,
    source: str | Path,
    out: str | Path,
    partial: bool = False,
    progress: Progress = _quiet,
) -> dict[str, int]:
    """Cut ACDC's or Synapse's volumes into slices.

    Intensities become grey levels 0..255: those in 0..1 are multiplied, all
    others are stretched from the least to the greatest of their volume.

    Args:
        dataset: 'acdc' or 'synapse'.
        source: folder that it was unpacked to.
        out: folder to make: ``img_dir/<split>/<case>_slice000.png`` and
            ``ann_dir/<split>/…``; not there until it is complete.
        partial: whether to put up with fewer volumes than there should be.
        progress: is told of each case.

    Returns:
        The number of slices of each split.

    Raises:
        DataError: if volumes are missing, a file is damaged, or ``out``
            exists.
        DependencyError: if the layout needs a package that isn't installed.
    """
    layouts, classes, wanted = VOLUMES[dataset]
    root = _require_source(source, wanted)
    cases = next((found for f in layouts if (found := f(root))), [])
    _require_cases(cases, SPLITS[dataset], partial, f'{root}', wanted)
    counts: Counter[str] = Counter()
    with replacing(_absent(out)) as target:
        for index, case in enumerate(cases):
            image, labels = case.read()
            if labels.min() < 0 or labels.max() >= classes:
                odd = labels.max() if labels.min() >= 0 else labels.min()
                raise DataError(
                    f'labels of case {case.name} must lie in 0..'
                    f'{classes - 1}, but got {odd}; looked for {wanted}'
                )
            grey = to_grey(image)
            for number in range(len(grey)):
                name = f'{case.name}_slice{number:03}.png'
                _save(target, grey[number], 'img_dir', case.split, name)
                part = labels[number].astype(np.uint8)
                _save(target, part, 'ann_dir', case.split, name)
            counts[case.split] += len(grey)
            progress(
                f'{index + 1}/{len(cases)} {case.name}: {len(grey)} slices '
                f'for {case.split}'
            )
    return dict(counts)


def _require_cases(
    cases: list[Case],
    expected: dict[str, int],
    partial: bool,
    where: str,
    wanted: str,
) -> None:
    """Refuse what is not the whole data set."""
    found = Counter(case.split for case in cases)
    twice = Counter((case.split, case.name) for case in cases).most_common(1)
    if twice and twice[0][1] > 1:
        raise DataError(
            f'{where} holds case {twice[0][0][1]} {twice[0][1]} times; name '
            'the folder of one copy'
        )
    for split, count in expected.items():
        if not found[split]:
            raise DataError(
                f'{where} holds no {split} volumes; looked for {wanted}'
            )
        _require_count(found[split], count, partial, f'{where}: {split}')


def _require_count(
    found: int, expected: int, partial: bool, what: str
) -> None:
    if found < expected and not partial:
        raise DataError(
            f'{what} has {found} of {expected}; unpack it anew, or convert '
            'what is there by --partial'
        )


def to_grey(image: np.ndarray) -> np.ndarray:
    """Intensities of a volume → uint8; see :func:`convert_volumes`.

    Raises:
        DataError: if one of them is no number.
    """
    if not np.isfinite(image).all():
        raise DataError('an image holds values that are no finite numbers')
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 1:
        image = (image - low) / max(high - low, 1e-12)
    return np.rint(image * 255).astype(np.uint8)


def convert_polyps(
    source: str | Path,
    out: str | Path,
    partial: bool = False,
    progress: Progress = _quiet,
) -> dict[str, int]:
    """Bring PraNet's collection of polyp images into mmseg's form.

    Masks become maps of 0 and 1: of two values the greater is 1; of more,
    what is at least half as bright as white.

    Args:
        source: folder with TrainDataset and TestDataset.
        out: folder to make: ``images/{train,test/<data set>}/*.png`` and
            ``annotations/…``, see ``POLYPS``; not there until it is complete.
        partial: whether to put up with fewer images than there should be.
        progress: is told of each data set.

    Returns:
        The number of images of each data set; CVC-300 may be missing.

    Raises:
        DataError: if something is missing or damaged, or if ``out`` exists.
    """
    wanted = (
        'TrainDataset/{image,mask}/*.png and TestDataset/{Kvasir,CVC-ClinicDB,'
        'CVC-ColonDB,ETIS-LaribPolypDB}/{images,masks}/*.png, as '
        'https://github.com/DengPingFan/PraNet gives them away'
    )
    root = _require_source(source, wanted)
    pairs = {}
    for folder, (name, count) in POLYPS.items():
        if folder in POLYP_OPTIONAL and not (root / folder).is_dir():
            continue
        pairs[name] = list(_pairs(root / folder, wanted))
        _require_count(len(pairs[name]), count, partial, f'{root / folder}')
    with replacing(_absent(out)) as target:
        for name, files in pairs.items():
            for image_path, mask_path in files:
                _convert_pair(image_path, mask_path, target, name)
            progress(f'{name}: {len(files)} images')
    return {name: len(files) for name, files in pairs.items()}


def _convert_pair(
    image_path: Path, mask_path: Path, target: Path, name: str
) -> None:
    image = read_image(image_path)[..., ::-1]
    mask = _read_mask(mask_path)
    if image.shape[:2] != mask.shape:
        height, width = image.shape[:2]
        raise DataError(
            f'{image_path} of {width}×{height} px and {mask_path} of '
            f'{mask.shape[1]}×{mask.shape[0]} px must be of one size; fetch '
            'them again'
        )
    file = f'{image_path.stem}.png'
    _save(target, image, 'images', name, file)
    _save(target, mask.astype(np.uint8), 'annotations', name, file)


def _read_mask(path: Path) -> np.ndarray:
    """Where a mask shows a polyp, (H, W), bool.

    Of two values, such as 0 and 1 or 0 and 255, the greater is the polyp; of
    more, as compression makes them, what is at least half as bright as white.
    """
    try:
        with Image.open(path) as image:
            image.load()
            # numbers of a palette and 16 bits as they are, colours as grey
            plain = image.mode in ('1', 'L', 'P') or image.mode[0] == 'I'
            values = np.asarray(image if plain else image.convert('L'))
    except (OSError, SyntaxError) as error:
        raise DataError(
            f'{path} is no readable image ({error}); fetch it again'
        ) from error
    found = np.unique(values)
    if len(found) <= 2 and (found[0] == 0 or len(found) == 1):
        return values > 0
    if values.dtype != np.uint8 or found[-1] < 128:
        raise DataError(
            f'{path} must be black and white, but holds {len(found)} values '
            f'up to {found[-1]}; fetch it again'
        )
    return values >= 128


def _pairs(folder: Path, wanted: str) -> Iterator[tuple[Path, Path]]:
    """Images of a folder with their masks."""
    found = []
    for names in (('image', 'images'), ('mask', 'masks')):
        there = [folder / name for name in names if (folder / name).is_dir()]
        if not there:
            raise DataError(
                f'no folder {folder / names[0]} or {folder / names[1]}; '
                f'looked for {wanted}'
            )
        files = files_in(there[0])
        stems = Counter(path.stem for path in files)
        twice = [path.name for path in files if stems[path.stem] > 1]
        if twice:
            raise DataError(
                f'{there[0]} holds {" and ".join(twice[:2])}, which would '
                'become one file; rename or remove one'
            )
        found.append({path.stem: path for path in files})
    images, masks = found
    lone = sorted(images.keys() ^ masks.keys())
    if lone or not images:
        raise DataError(
            f'{folder} holds {len(images)} images and {len(masks)} masks'
            + (f'; without partner: {lone[0]}' if lone else '')
            + f'; looked for {wanted}'
        )
    for stem, path in images.items():
        yield path, masks[stem]


def _require_source(source: str | Path, wanted: str) -> Path:
    root = Path(source)
    if not root.is_dir():
        raise DataError(f'no folder {root}; looked for {wanted}')
    return root


def _save(folder: Path, pixels: np.ndarray, *parts: str) -> None:
    """Write a PNG at ``parts`` below a folder."""
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _absent(out: str | Path) -> Path:
    """An absolute path where there is nothing yet."""
    if os.path.lexists(out):
        raise DataError(f'{out} exists; name another folder or remove it')
    return Path(out).absolute()
