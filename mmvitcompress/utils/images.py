"""Image files: which there are in a folder, which to take, reading one."""

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mmvitcompress.errors import DataError

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')


def image_files(source: str | Path) -> list[Path]:
    """An image, or all images in a folder and the folders in it, by name.

    Raises:
        DataError: If there is none.
    """
    source = Path(source)
    candidates = [source] if source.is_file() else source.rglob('*')
    files = sorted(
        path
        for path in candidates
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
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


def read_image(path: Path) -> Image.Image:
    """The image in a file, in RGB.

    Raises:
        DataError: If it can't be read.
    """
    try:
        with Image.open(path) as image:
            return image.convert('RGB')
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(
            f'image {str(path)!r} cannot be read ({error}); remove or '
            'replace it'
        ) from error
