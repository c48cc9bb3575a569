"""PraNet's collection of polyps."""

import os

import numpy as np
import pytest
from dataset_converters import medical
from dataset_converters.medical import convert_polyps
from PIL import Image
from volumes import pixels

from mmvitcompress.datasets.medical import PolypDataset
from mmvitcompress.errors import DataError


def test_polyps(polyps, tmp_path):
    out = tmp_path / 'out'
    counts = convert_polyps(polyps, out, partial=True)
    names = (
        'train',
        *(f'test/{n}' for n in ('kvasir', 'clinicdb', 'colondb', 'etis')),
    )
    assert counts == dict.fromkeys(names, 2)
    for folder, name in (
        ('TrainDataset', 'train'),
        ('TestDataset/ETIS-LaribPolypDB', 'test/etis'),
    ):
        for index in range(2):
            image, mask = (
                pixels(next((polyps / folder).glob(f'{kind}*/{index}.png')))
                for kind in ('image', 'mask')
            )
            mask = mask if mask.ndim == 2 else mask[..., 0]
            assert (pixels(out / f'images/{name}/{index}.png') == image).all()
            labels = pixels(out / f'annotations/{name}/{index}.png')
            assert (labels == (mask > 100)).all()
    tests = PolypDataset(
        data_root=str(out),
        data_prefix=dict(
            img_path='images/test', seg_map_path='annotations/test'
        ),
    )
    assert len(tests) == 8


def test_half_unpacked_polyps_are_refused(polyps, tmp_path):
    out = tmp_path / 'out'
    with pytest.raises(DataError, match='TrainDataset has 2 of 1450'):
        convert_polyps(polyps, out)
    (polyps / 'TestDataset/Kvasir/masks/1.png').unlink()
    with pytest.raises(
        DataError, match=r'2 images and 1 masks; without .*: 1;'
    ):
        convert_polyps(polyps, out, partial=True)
    (polyps / 'TestDataset/Kvasir/masks').rename(polyps / 'elsewhere')
    with pytest.raises(DataError, match=r'no folder .*Kvasir/mask'):
        convert_polyps(polyps, out, partial=True)


@pytest.mark.parametrize(
    ('content', 'message'),
    [(b'\x89PNG', 'is no readable image'), (None, 'of 3×3 px must be of one')],
)
def test_damaged_polyps_are_named(polyps, tmp_path, content, message):
    path = polyps / 'TrainDataset/mask/1.png'
    if content:
        path.write_bytes(content)
    else:
        Image.new('L', (3, 3)).save(path)
    with pytest.raises(DataError, match=rf'1\.png.* {message}'):
        convert_polyps(polyps, tmp_path / 'out', partial=True)
    assert os.listdir(tmp_path) == ['polyp']


NOISE = np.arange(3, dtype=np.uint8)
POLYP = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)


def as_palette(mask):
    image = Image.fromarray(mask, mode='P')
    image.putpalette([0, 0, 0, 30, 30, 30])  # darker than half of white
    return image


@pytest.mark.parametrize(
    'make',
    [
        Image.fromarray,
        lambda mask: Image.fromarray(mask * 255),
        lambda mask: Image.fromarray(mask * 38),
        lambda mask: Image.fromarray(mask.astype(bool)),
        lambda mask: Image.fromarray(mask.astype(np.uint16) * 65535),
        lambda mask: Image.fromarray((mask * 255)[..., None].repeat(3, 2)),
        lambda mask: Image.fromarray(mask[..., None].repeat(3, 2)),
        # as compression leaves them
        lambda mask: Image.fromarray(mask * 252 + mask.any() * NOISE),
        as_palette,
    ],
)
def test_masks_of_all_kinds(tmp_path, make):
    path = tmp_path / 'mask.png'
    for mask in (POLYP, np.ones_like(POLYP), np.zeros_like(POLYP)):
        make(mask).save(path)
        assert (medical._read_mask(path) == mask).all()


def test_masks_that_are_none(tmp_path):
    Image.fromarray(np.array([[0, 7, 90]], np.uint8)).save(tmp_path / 'a.png')
    with pytest.raises(DataError, match=r'a\.png must be black and white'):
        medical._read_mask(tmp_path / 'a.png')


@pytest.mark.parametrize('kind', ['image', 'mask'])
def test_no_image_is_dropped_for_its_name(polyps, tmp_path, kind):
    folder = polyps / 'TrainDataset' / kind
    Image.new('L', (8, 6)).save(folder / '1.jpg')
    with pytest.raises(DataError, match=r'1\.jpg and 1\.png, .* one file'):
        convert_polyps(polyps, tmp_path / 'out', partial=True)
    (folder / '1.jpg').rename(folder / '._1.jpg')  # what macOS leaves
    assert convert_polyps(polyps, tmp_path / 'out', True)['train'] == 2
