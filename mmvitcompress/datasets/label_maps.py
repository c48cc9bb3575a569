"""Reading label maps, with errors that name the file and what it holds."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmvitcompress.errors import DataError
from mmvitcompress.utils.images import UNREADABLE

_PNG = b'\x89PNG'
IGNORED = 255  # label value that every loss and metric leaves out


def read_labels(content: bytes, path: str | Path) -> np.ndarray:
    """Labels (H, W) of a file; palettes are left aside.

    Args:
        content: Of the file.
        path: For messages.

    Raises:
        DataError: If it is no image, or holds colours or fractions.
    """
    try:
        if content.startswith(_PNG):
            # loading passes over checksums, and fills up with zeros
            Image.open(io.BytesIO(content)).verify()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            labels = np.asarray(image)
    except UNREADABLE as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = 'in no format that Pillow knows' if unknown else error
        raise DataError(
            f'{path} is no readable image ({reason}): fetch or write it again'
        ) from error
    if labels.ndim != 2 or labels.dtype.kind not in 'bui':
        raise DataError(
            f'{path} must be a map of class indices, but got an image of '
            f'shape {labels.shape} and type {labels.dtype}'
        )
    return labels


def check_labels(labels: np.ndarray, path: str | Path, count: int) -> None:
    """Refuse labels, of any shape, besides 0..count - 1 and 255.

    Raises:
        DataError: If there is one; it names the file at ``path``.
    """
    odd = labels[(labels >= count) & (labels != IGNORED) | (labels < 0)]
    if len(odd):
        raise DataError(
            f'{path} must hold labels 0..{count - 1} or {IGNORED}, but got '
            f'{odd.min()}'
        )


def check_size(
    size: Sequence[int], path: str | Path, image: Sequence[int]
) -> None:
    """Refuse a label map whose (height, width) aren't its image's.

    Raises:
        DataError: If they differ; it names the file at ``path``.
    """
    if tuple(size) != tuple(image):
        raise DataError(
            f'{path} must be as large as its image, {image[0]}×{image[1]} '
            f'(height, width), but got {size[0]}×{size[1]}'
        )


def label_table(
    label_map: Mapping[int, int] | None, reduce_zero_label: bool
) -> np.ndarray:
    """What each label of a file becomes, (256), uint8, as mmseg has it."""
    first = [IGNORED, *range(254), IGNORED]
    labels = first if reduce_zero_label else range(256)
    known = label_map or {}
    return np.array([known.get(label, label) for label in labels], np.uint8)
