"""MMSegmentation's converter for iSAID, with label maps that keep all
classes."""

import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from PIL import Image

from mmvitcompress.datasets.checks import converter
from mmvitcompress.errors import ConfigError, DataError
from mmvitcompress.utils.checks import check_extent


def convert(
    source: str, out: str, size: int = 896, overlap: int = 384
) -> None:
    """Cut images and masks into square crops.

    Args:
        source: Folder with the zips in {train,val,test}/images and
            {train,val}/Semantic_masks.
        out: Folder to fill; mmseg's ``iSAIDDataset`` reads it.
        size: Side of a crop, in pixels. Defaults to 896.
        overlap: Pixels that a crop shares with its neighbour. Defaults to
            384.

    Raises:
        ConfigError: If the overlap isn't smaller than a crop.
        DataError: If there is no zip where one is looked for.
    """
    check_extent('size', size)
    if not 0 <= overlap < size:
        raise ConfigError(
            f'overlap must lie in 0..{size - 1}, but got {overlap}'
        )
    for split in ('train', 'val', 'test'):
        kinds = (
            ('images',) if split == 'test' else ('images', 'Semantic_masks')
        )
        for kind in kinds:
            folder = Path(source, split, kind)
            if not any(folder.glob('*.zip')):
                raise DataError(
                    f'no *.zip in {folder}; get the images of DOTA-v1.0 and '
                    'the semantic masks of iSAID: '
                    'https://captain-whu.github.io/iSAID/dataset.html'
                )
    options = dict(
        patch_width=size, patch_height=size, overlap_area=overlap, out_dir=out
    )
    argv = ['isaid.py', str(source)]
    for name, value in options.items():
        argv += [f'--{name}', str(value)]
    with mock.patch.object(sys, 'argv', argv), _grey_label_maps():
        runpy.run_path(converter('isaid'), run_name='__main__')


@contextmanager
def _grey_label_maps() -> Iterator[None]:
    """Let Pillow choose the mode: of a palette image without a palette it
    would save one bit."""
    fromarray = Image.fromarray
    with mock.patch.object(
        Image, 'fromarray', lambda array, mode=None: fromarray(array)
    ):
        yield
