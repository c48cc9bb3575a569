"""Image files: which there are in a folder, which to take; read and write."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mmvitcompress.errors import DataError
from mmvitcompress.utils.files import write_atomically

# how Pillow's decoders say that a file is no image or a damaged one
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
)
SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')


def files_in(
    folder: str | Path, suffixes: Sequence[str] = SUFFIXES
) -> list[Path]:
    """Files of some kinds in a folder and the folders in it, by name.

    What is hidden is left out, such as the ``._x.jpg`` that macOS leaves.
    """
    return [
        path
        for path in sorted(Path(folder).rglob('*'))
        if path.suffix.lower() in suffixes and path.is_file()
        if not any(
            part.startswith('.') for part in path.relative_to(folder).parts
        )
    ]


def image_files(source: str | Path) -> list[Path]:
    """An image, or all images in a folder and the folders in it, by name.

    Raises:
        DataError: If there is none.
    """
    source = Path(source)
    if source.is_file() and source.suffix.lower() in SUFFIXES:
        return [source]
    files = files_in(source)
    if not files:
        raise DataError(
            f'no images ({", ".join(SUFFIXES)}) found in {str(source)!r}; '
            'give a folder with images in it'
        )
    return files


def equally_spaced(total: int, count: int) -> list[int]:
    """``count`` of ``total`` places at equal distances; all if there are
    fewer."""
    count = min(total, count)
    return [place * total // count for place in range(count)]


def read_image(path: str | Path, color_type: str = 'color') -> np.ndarray:
    """Read an image as OpenMMLab's training does: by MMCV.

    16-bit images become 8-bit ones, and EXIF's orientation is followed.

    Args:
        path: Its file.
        color_type: As MMCV's ``imread`` takes it. Defaults to 'color'.

    Returns:
        (H, W, 3) or, if grey, (H, W); uint8, in BGR.

    Raises:
        DataError: If it can't be read.
    """
    import cv2
    import mmcv

    try:
        image = mmcv.imfrombytes(Path(path).read_bytes(), flag=color_type)
    except (cv2.error, OSError, ValueError):
        image = None
    if image is None:
        raise DataError(
            f'image {str(path)!r} cannot be read: it is damaged or no image; '
            'remove or replace it'
        )
    return image


def upright(image: Image.Image) -> Image.Image:
    """A PIL image in 8 bits and turned as its EXIF says, as MMCV reads it.

    PIL by itself makes white of 16-bit grey.
    """
    if image.mode.startswith('I'):
        grey = np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)
        image = Image.fromarray(grey)
    return ImageOps.exif_transpose(image)


def to_pil(image: np.ndarray) -> Image.Image:
    """An image (H, W, 3) in BGR as timm's transforms take it."""
    return Image.fromarray(np.ascontiguousarray(image[..., ::-1]))


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an image (H, W, 3) in BGR, or (H, W), as its suffix tells.

    Raises:
        WriteError: If it can't be written.
    """
    import cv2

    # not by cv2.imwrite, which dies of names that are not UTF-8
    content = cv2.imencode(Path(path).suffix, image)[1]
    write_atomically(path, content.tobytes())
