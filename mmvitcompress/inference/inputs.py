"""Images and videos to predict on: found, read, and named."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import mmcv
import numpy as np

from mmvitcompress.errors import DataError
from mmvitcompress.utils.images import SUFFIXES as IMAGES

VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm')


@dataclass(frozen=True)
class Source:
    """One image or video.

    Attributes:
        path: Its file.
        name: What results are called, a relative path without suffix.
    """

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether it is a video."""
        return self.path.suffix.lower() in VIDEOS


@dataclass(frozen=True)
class Frame:
    """One image to predict on.

    Attributes:
        source: Where it comes from.
        index: Which frame of a video it is, from 0; 0 for an image.
        image: (H, W, 3), uint8, in BGR as OpenMMLab loads images.
    """

    source: Source
    index: int
    image: np.ndarray


def find_sources(
    inputs: Sequence[str | Path], besides: str | Path | None = None
) -> list[Source]:
    """All images and videos that are named, or lie in folders that are.

    Args:
        inputs: Files and folders; these are searched with all folders in
            them, and their files sorted by name.
        besides: Folder to leave out, that of the results.

    Raises:
        DataError: If an input doesn't exist, is of another kind, or is a
            folder without images and videos; or if two of them have one name.
    """
    sources = []
    besides = None if besides is None else Path(besides).resolve()
    for given in map(Path, inputs):
        if given.is_dir():
            found = _in_folder(given, besides)
        elif given.is_file():
            found = [Source(given, given.stem)]
        else:
            raise DataError(f'input {str(given)!r} not found')
        sources += found
    names: dict[str, Path] = {}
    for source in sources:
        if source.path.suffix.lower() not in (*IMAGES, *VIDEOS):
            raise DataError(
                f'{str(source.path)!r} is neither an image '
                f'({", ".join(IMAGES)}) nor a video ({", ".join(VIDEOS)})'
            )
        other = names.setdefault(source.name, source.path)
        if other is not source.path:
            raise DataError(
                f'results of {str(other)!r} and {str(source.path)!r} would '
                'be written to the same files; rename one, or predict on them '
                'one after the other into different folders'
            )
    if not sources:
        raise DataError('no inputs are given; name images, videos or folders')
    return sources


def _in_folder(folder: Path, besides: Path | None) -> list[Source]:
    sources = [
        Source(path, path.relative_to(folder).with_suffix('').as_posix())
        for path in sorted(folder.rglob('*'))
        if path.suffix.lower() in (*IMAGES, *VIDEOS) and path.is_file()
        if besides is None or besides not in path.resolve().parents
    ]
    if not sources:
        raise DataError(
            f'no images or videos in folder {str(folder)!r}; it should hold '
            f'files of {", ".join((*IMAGES, *VIDEOS))}'
        )
    return sources


def read_frames(
    sources: Sequence[Source], color_type: str = 'color'
) -> Iterator[Frame]:
    """All images, and all frames of videos, in their order.

    Args:
        sources: Where they come from.
        color_type: How images are loaded, as MMCV's ``imread`` takes it.
            Defaults to 'color'.

    Raises:
        DataError: If one can't be read.
    """
    for source in sources:
        if source.is_video:
            yield from _read_video(source)
        else:
            yield Frame(source, 0, _read_image(source.path, color_type))


def _read_image(path: Path, color_type: str) -> np.ndarray:
    try:
        image = mmcv.imfrombytes(path.read_bytes(), flag=color_type)
    except (cv2.error, OSError, ValueError):
        image = None
    if image is None:
        raise DataError(
            f'image {str(path)!r} cannot be read: it is damaged or no image; '
            'replace or remove it'
        )
    return image


def _read_video(source: Source) -> Iterator[Frame]:
    with opened(source.path) as video:
        index = 0
        while True:
            there, image = video.read()
            if not there:
                break
            yield Frame(source, index, image)
            index += 1
    if not index:
        raise _unreadable(source.path)


class opened:
    """A video that is closed in the end.

    Args:
        path: Its file.

    Raises:
        DataError: If it can't be read.
    """

    def __init__(self, path: Path):
        self.video = cv2.VideoCapture(str(path))
        if not self.video.isOpened():
            raise _unreadable(path)

    def __enter__(self) -> cv2.VideoCapture:
        return self.video

    def __exit__(self, *args) -> None:
        self.video.release()


def _unreadable(path: Path) -> DataError:
    return DataError(
        f'video {str(path)!r} cannot be read: it is damaged, or of a codec '
        'that OpenCV lacks; convert it, for example to H.264 in .mp4'
    )


def count_frames(sources: Sequence[Source]) -> int:
    """How many images and frames there are, as far as videos tell."""
    total = 0
    for source in sources:
        if source.is_video:
            with opened(source.path) as video:
                total += max(1, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
        else:
            total += 1
    return total


def frame_rate(path: Path) -> float:
    """Frames per second of a video; 25 where it doesn't tell."""
    with opened(path) as video:
        return video.get(cv2.CAP_PROP_FPS) or 25.0
