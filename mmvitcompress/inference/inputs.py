"""Images and videos to predict on: found, named, and read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmvitcompress.errors import DataError
from mmvitcompress.utils.images import SUFFIXES as IMAGES
from mmvitcompress.utils.images import files_in, read_image

VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm')


@dataclass(frozen=True)
class Input:
    """The file of an image or video."""

    path: Path
    name: str  # what results are called, a relative path without suffix

    @property
    def is_video(self) -> bool:
        """Whether it is a video."""
        return self.path.suffix.lower() in VIDEOS


@dataclass(frozen=True)
class Frame:
    """One image to predict on."""

    source: Input
    index: int  # of a video's frame, from 0; 0 for an image
    image: np.ndarray  # (H, W, 3), uint8, in BGR as OpenMMLab loads images


def find_sources(
    inputs: Sequence[str | Path], besides: str | Path | None = None
) -> list[Input]:
    """All images and videos that are named, or lie in folders that are.

    Args:
        inputs: Files, and folders of them and of folders; their files come
            by name, hidden ones left out.
        besides: Folder to leave out, that of the results.

    Raises:
        DataError: If an input doesn't exist, is of another kind, or is a
            folder without images and videos; or if two of them have one name.
    """
    kinds = (*IMAGES, *VIDEOS)
    sources: dict[str, Input] = {}
    results = Path(besides).resolve() if besides is not None else None
    for given in map(Path, inputs):
        if not given.exists():
            raise DataError(
                f'input {str(given)!r} not found; correct its path'
            )
        root, files = given.parent, [given]
        if given.is_dir():
            found = files_in(given, kinds)
            root = given
            files = [f for f in found if results not in f.resolve().parents]
        if not files:
            raise DataError(
                f'no images or videos in folder {str(given)!r}; it should '
                f'hold files of {", ".join(kinds)}'
            )
        for path in files:
            if path.suffix.lower() not in kinds:
                raise DataError(
                    f'{str(path)!r} is neither an image '
                    f'({", ".join(IMAGES)}) nor a video ({", ".join(VIDEOS)})'
                )
            name = path.relative_to(root).with_suffix('').as_posix()
            if name in sources:
                raise DataError(
                    f'results of {str(sources[name].path)!r} and '
                    f'{str(path)!r} would be written to the same files; '
                    'rename one, or predict on them one after the other into '
                    'different folders'
                )
            sources[name] = Input(path, name)
    if not sources:
        raise DataError('no inputs are given; name images, videos or folders')
    return list(sources.values())


def read_frames(
    sources: Sequence[Input],
    failures: dict[Input, str],
    color_type: str = 'color',
) -> Iterator[Frame]:
    """All images, and all frames of videos, in their order.

    Args:
        sources: Where they come from.
        failures: What can't be read is noted here and left out.
        color_type: As MMCV's ``imread`` takes it. Defaults to 'color'.
    """
    for source in sources:
        try:
            if source.is_video:
                yield from _read_video(source)
            else:
                yield Frame(source, 0, read_image(source.path, color_type))
        except DataError as error:
            failures[source] = str(error)


def _read_video(source: Input) -> Iterator[Frame]:
    video = open_video(source.path)
    index = 0
    while (image := video.read()[1]) is not None:
        yield Frame(source, index, image)
        index += 1
    if not index:
        raise DataError(
            f'video {str(source.path)!r} cannot be read: it is damaged, of a '
            'codec that OpenCV lacks, or its name is not UTF-8; convert it, '
            'for example to H.264 in .mp4'
        )


def open_video(path: Path) -> cv2.VideoCapture:
    """A video to read; one without frames if it can't be."""
    try:
        return cv2.VideoCapture(path.as_posix().encode().decode())
    except UnicodeEncodeError:  # of which OpenCV itself dies
        return cv2.VideoCapture()


def count_frames(source: Input) -> int:
    """How many frames there are, as far as a video tells."""
    frames = cv2.CAP_PROP_FRAME_COUNT
    video = source.is_video and open_video(source.path)
    return max(1, int(video.get(frames))) if video else 1
