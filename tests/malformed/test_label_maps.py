"""Label maps that tools and disks have changed."""

import io
import os
from zlib import crc32

import numpy as np
import pytest
from malformed import accepted, cases, damaged, in_turn
from PIL import Image

from mmvitcompress.datasets.label_check import check_label_maps
from mmvitcompress.datasets.segmentation import FolderDataset

pytestmark = pytest.mark.slow

CLASSES, SHAPE = ('a', 'b', 'c'), (14, 22)
FORMS = 'png', 'tif', 'bmp'
MODES = 'RGB', 'RGBA', 'LA', 'P', 'L', '1', 'I;16', 'I', 'F', 'CMYK', 'YCbCr'


def encoded(image, form='png', **options):
    """A file's bytes; such as a form doesn't have become another form's."""
    for kind in dict.fromkeys((form, 'tiff', 'png')):
        file = io.BytesIO()
        try:
            image.save(file, 'tiff' if kind == 'tif' else kind, **options)
        except (OSError, ValueError):
            continue
        return file.getvalue()
    raise AssertionError(image.mode)


def of_mode(labels, mode):
    if mode == 'I;16':
        return Image.fromarray(labels.astype(np.uint16))
    if mode == 'P':
        image = Image.fromarray(labels, 'L').convert('P')
        image.putdata(labels.ravel())
        return image
    return Image.fromarray(labels).convert(mode)


def spoilt(rng, how, labels, form):
    """The bytes of a label map that something happened to."""
    labels = labels.copy()
    if how == 'damaged':
        return damaged(rng, encoded(Image.fromarray(labels), form))
    if how == 'mode':
        return encoded(of_mode(labels, rng.choice(MODES)), form)
    if how == 'labels':
        at = rng.randrange(labels.size)
        labels.flat[at] = rng.choice([0, 1, 3, 4, 77, 127, 128, 254, 255])
    elif how == 'size':
        shape = rng.choice([(0, 1), (1, 0), (-1, 0), (2, 2), (13, 0)])
        height, width = (max(1, n - d) for n, d in zip(SHAPE, shape))
        labels = np.resize(labels, (height, width))
    elif how == 'wide':
        wide = labels.astype(rng.choice([np.uint16, np.int32, np.float32]))
        value = rng.choice([0, 255, 256, 258, 65535, -1, 0.5])
        wide.flat[0] = np.array(value).astype(wide.dtype)
        return encoded(Image.fromarray(wide), form)
    elif how == 'other':
        return rng.choice([b'', b'\x00' * 50, b'labels\n1 2 3\n', b'GIF89a'])
    elif how == 'bomb':  # a header of an image of 3.6 gigapixels
        content = bytearray(encoded(Image.fromarray(labels)))
        content[16:24] = (60000).to_bytes(4, 'big') * 2
        content[29:33] = crc32(content[12:29]).to_bytes(4, 'big')
        return bytes(content)
    elif how == 'pages':
        image = Image.fromarray(labels)
        return encoded(image, 'tif', save_all=True, append_images=[image])
    return encoded(Image.fromarray(labels), form)


HOWS = 'damaged', 'mode', 'labels', 'size', 'wide', 'other', 'bomb', 'pages'
HOWS += 'damaged', 'gone', 'folder', 'locked'


@cases('label maps')
def test_label_maps_are_right_or_refused(rng, tmp_path, capsys):
    made, form = np.random.default_rng(rng.number), rng.choice(FORMS)
    for folder in ('images', 'maps'):
        (tmp_path / folder).mkdir()
    labels = [made.integers(0, 3, SHAPE, np.uint8) for _ in range(2)]
    for name, each in zip('xy', labels):
        image = made.integers(0, 256, (*SHAPE, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / 'images' / f'{name}.png')
        path = tmp_path / 'maps' / f'{name}.{form}'
        path.write_bytes(encoded(Image.fromarray(each), form))
    how = in_turn(rng, {*HOWS})
    path = tmp_path / 'maps' / f'{rng.choice("xy")}.{form}'
    if how in ('gone', 'folder', 'locked'):
        path.unlink()
        if how == 'folder':
            path.mkdir()
        elif how == 'locked':  # leads nowhere
            os.symlink(tmp_path / 'nowhere', path)
    else:
        index = 'xy'.index(path.stem)
        path.write_bytes(spoilt(rng, how, labels[index], form))
    found = []

    def main():
        dataset = FolderDataset(
            data_root=str(tmp_path),
            data_prefix=dict(img_path='images', seg_map_path='maps'),
            metainfo=dict(classes=CLASSES),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations'),
            ],
        )
        check_label_maps([dataset], progress=False)
        found.extend(dataset[i]['gt_seg_map'] for i in range(2))

    if accepted(main, [f'{path.stem}.'], capsys):
        for one, each in zip('xy', found):
            with Image.open(tmp_path / 'maps' / f'{one}.{form}') as image:
                stored = np.asarray(image)
            assert np.array_equal(each, stored)  # by PIL alone
            assert {*np.unique(each)} <= {0, 1, 2, 255}
            if how == 'damaged' and form == 'png':  # which has checksums
                assert np.array_equal(each, labels['xy'.index(one)])
