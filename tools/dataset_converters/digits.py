"""A data set that needs no download: scikit-learn's handwritten digits.

1 797 real digits of 8x8 pixels and 17 grey levels (Alpaydin and Kaynak,
Optical Recognition of Handwritten Digits, UCI 1998; CC BY 4.0) are laid out in
the formats that the loaders of real data read::

    OUT/
      digits.json                              how the tree was made
      classification/{train,val}/{0..9}/*.png  ImageFolder, 32x32 RGB
      scenes/
        images/{training,validation}/*.png     RGB
        annotations/{training,validation}/*.png
                                0 = background, 1..10 = digits 0..9
        annotations/instances_{training,validation}.json
                                COCO, category ids 1..10 = digits 0..9

A fifth of the digits is held out: validation folders and scenes show no digit
that a training folder or scene shows. Each digit keeps its index in
scikit-learn's collection as file name, and as ``source`` in the COCO JSON.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from dataset_converters.coco_format import coco_annotation
from dataset_converters.digit_scenes import make_scene
from dataset_converters.folders import count_files, replacing
from PIL import Image

from mmvitcompress.datasets.palettes import DIGIT_CLASSES
from mmvitcompress.errors import ConfigError, DataError, DependencyError

VERSION = 1  # of the tree; to be raised whenever its contents change
MARKER = 'digits.json'
HELD_OUT = 0.2  # fraction of every class's digits
THUMBNAIL = 32  # side of a classification image, in pixels
SPLITS = {'train': 'training', 'val': 'validation'}


@dataclass(frozen=True)
class DigitsSpec:
    """What a digits tree is made of.

    Attributes:
        scenes: number of training scenes; a quarter as many are made for
            validation.
        size: side of a scene, in pixels.
        seed: of everything random.

    Raises:
        ConfigError: if a value is out of range.
    """

    scenes: int = 400
    size: int = 128
    seed: int = 0

    def __post_init__(self):
        if self.scenes < 4:
            raise ConfigError(
                f'scenes must be 4 or more, but got {self.scenes}; '
                'a quarter as many are made for validation'
            )
        if not 64 <= self.size <= 1024:
            raise ConfigError(
                f'size must lie in 64..1024 pixels, but got {self.size}'
            )
        if not 0 <= self.seed < 2**32:
            raise ConfigError(
                f'seed must lie in 0..2**32 - 1, but got {self.seed}'
            )

    def count(self, split: str) -> int:
        """Number of scenes in ``split``, 'train' or 'val'."""
        return self.scenes if split == 'train' else self.scenes // 4


def make_digits(
    out: str | os.PathLike,
    scenes: int = 400,
    size: int = 128,
    seed: int = 0,
    overwrite: bool = False,
) -> bool:
    """Lay the digits out on disk, whole or not at all.

    The same arguments give the same tree.

    Args:
        out: folder to make. Nothing is done if it already holds just the
            tree that the other arguments ask for.
        scenes: number of training scenes. Defaults to 400.
        size: side of a scene, in pixels. Defaults to 128.
        seed: of everything random. Defaults to 0.
        overwrite: replace a tree of other arguments, or a damaged one.
            Defaults to False.

    Returns:
        Whether the tree was made; False if it was there already.

    Raises:
        ConfigError: if an argument is out of range.
        DataError: if ``out`` is in the way or cannot be written.
        DependencyError: if scikit-learn is missing.
    """
    spec = DigitsSpec(scenes, size, seed)
    target = Path(out).expanduser().resolve()
    if is_made(target, spec):
        return False
    _refuse_to_destroy(target, overwrite)
    glyphs, digits = load_glyphs()
    with replacing(target) as folder:
        for split, sources in split_digits(digits, seed).items():
            _write_thumbnails(
                folder / 'classification' / split, glyphs, digits, sources
            )
            _write_scenes(
                folder / 'scenes', split, spec, glyphs, digits, sources
            )
        content = {**_parameters(spec), 'files': count_files(folder)}
        (folder / MARKER).write_text(json.dumps(content, indent=2) + '\n')
    return True


def is_made(target: Path, spec: DigitsSpec) -> bool:
    """Whether ``target`` holds the tree of ``spec`` with all its files."""
    made = _read_marker(target)
    if made is None or made.pop('files') > count_files(target) - 1:
        return False
    return made == _parameters(spec)


def load_glyphs() -> tuple[np.ndarray, np.ndarray]:
    """The digits' pen pressure in 0..1, (1797, 8, 8), and their values.

    Raises:
        DependencyError: if scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DependencyError(
            'the handwritten digits come with scikit-learn, which cannot be '
            f'imported ({error}); run: pip install scikit-learn'
        ) from error
    collection = load_digits()
    return collection.images / 16, collection.target


def split_digits(digits: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Hold out a fifth of each class.

    Args:
        digits: values 0..9, of shape (N,).
        seed: of the choice.

    Returns:
        Sorted indices of the digits to train ('train') and to validate with
        ('val').
    """
    rng = np.random.RandomState(seed)
    held_out = []
    for value in range(10):
        members = rng.permutation(np.flatnonzero(digits == value))
        held_out.append(members[: round(HELD_OUT * len(members))])
    val = np.sort(np.concatenate(held_out))
    return {'train': np.setdiff1d(np.arange(len(digits)), val), 'val': val}


def _write_thumbnails(
    folder: Path, glyphs: np.ndarray, digits: np.ndarray, sources: np.ndarray
) -> None:
    for name in DIGIT_CLASSES:
        (folder / name).mkdir(parents=True)
    for source in sources:
        grey = np.rint(glyphs[source] * 255).astype(np.uint8)
        image = Image.fromarray(grey).resize(
            (THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC
        )
        name = DIGIT_CLASSES[digits[source]]
        _save(image.convert('RGB'), folder / name / f'{source:04d}.png')


def _write_scenes(
    folder: Path,
    split: str,
    spec: DigitsSpec,
    glyphs: np.ndarray,
    digits: np.ndarray,
    sources: np.ndarray,
) -> None:
    split_name = SPLITS[split]
    image_folder = folder / 'images' / split_name
    label_folder = folder / 'annotations' / split_name
    image_folder.mkdir(parents=True)
    label_folder.mkdir(parents=True)
    images, annotations = [], []
    for index in range(spec.count(split)):
        # seeded one by one: a scene stays the same when more are asked for
        rng = np.random.RandomState(
            [spec.seed, list(SPLITS).index(split), index]
        )
        scene = make_scene(rng, glyphs, digits, sources, spec.size)
        name = f'{index:05d}.png'
        _save(Image.fromarray(scene.image), image_folder / name)
        _save(Image.fromarray(scene.label_map), label_folder / name)
        images.append(
            {
                'id': index + 1,
                'file_name': name,
                'height': spec.size,
                'width': spec.size,
            }
        )
        for instance in scene.instances:
            annotations.append(
                coco_annotation(
                    len(annotations) + 1,
                    index + 1,
                    instance.digit + 1,
                    instance.mask,
                    source=instance.source,
                )
            )
    content = {
        'info': {'description': 'scenes of handwritten digits'},
        'images': images,
        'annotations': annotations,
        'categories': [
            {'id': value + 1, 'name': name, 'supercategory': 'digit'}
            for value, name in enumerate(DIGIT_CLASSES)
        ],
    }
    path = folder / 'annotations' / f'instances_{split_name}.json'
    path.write_text(json.dumps(content, separators=(',', ':')) + '\n')


def _save(image: Image.Image, path: Path) -> None:
    image.save(path, compress_level=6)


def _parameters(spec: DigitsSpec) -> dict:
    return {'version': VERSION, **asdict(spec)}


def _read_marker(target: Path) -> dict | None:
    try:
        made = json.loads((target / MARKER).read_text())
    except (OSError, ValueError):
        return None
    # no other program's file of the same name
    keys = {*_parameters(DigitsSpec()), 'files'}
    return made if isinstance(made, dict) and keys <= set(made) else None


def _refuse_to_destroy(target: Path, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    made = _read_marker(target)
    if made is None:
        raise DataError(
            f'{target} exists and was not made by this tool (it holds no '
            f'{MARKER}); remove it yourself or choose another folder'
        )
    if not overwrite:
        raise DataError(
            f'{target} was made with other parameters ({made}) or has lost '
            'files since; overwrite it (--overwrite) or choose another folder'
        )
