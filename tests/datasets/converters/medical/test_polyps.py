"""PraNet's collection of polyps."""

import pytest
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
    [(b'\x89PNG', 'no readable image'), (None, 'must be of one size')],
)
def test_damaged_polyps_are_named(polyps, tmp_path, content, message):
    path = polyps / 'TrainDataset/mask/1.png'
    if content:
        path.write_bytes(content)
    else:
        Image.new('L', (3, 3)).save(path)
    with pytest.raises(DataError, match=rf'1\.png.* {message}'):
        convert_polyps(polyps, tmp_path / 'out', partial=True)
    assert not (tmp_path / 'out.part').exists()
