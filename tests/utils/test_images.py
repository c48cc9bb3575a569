"""What is read from image files, by MMCV and by PIL alike."""

import numpy as np
import pytest
from PIL import Image

from mmvitcompress.datasets import TimmDataset
from mmvitcompress.errors import DataError
from mmvitcompress.utils.images import read_image, upright

GREYS = np.arange(0, 24, dtype=np.uint8).reshape(4, 6) * 10


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_16_bit_grey_keeps_its_shades(tmp_path, suffix):
    path = tmp_path / f'grey{suffix}'
    Image.fromarray(GREYS.astype(np.uint16) * 256 + 255).save(path)
    image = read_image(path)
    assert (image == GREYS[..., None]).all() and image.dtype == np.uint8
    assert (np.asarray(upright(Image.open(path))) == GREYS).all()


@pytest.mark.parametrize('orientation', range(1, 9))
def test_photos_are_turned_as_their_exif_says(tmp_path, orientation):
    """As PIL's own ``exif_transpose`` has it, and as training reads them."""
    folder = tmp_path / 'train/class'
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    # quarters of the picture, of which each place has its own grey
    picture = GREYS.repeat(8, 0).repeat(8, 1)
    Image.fromarray(picture).save(folder / 'a.jpg', exif=exif, quality=100)
    seen = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.T,
        6: picture[::-1].T,
        7: picture[::-1, ::-1].T,
        8: picture.T[::-1],
    }[orientation]
    found = read_image(folder / 'a.jpg')[..., 0]
    assert found.shape == seen.shape
    assert np.abs(found.astype(int) - seen).max() <= 2
    height, width = seen.shape
    size = dict(input_size=(3, height, width), crop_pct=1.0)
    plain = dict(mean=(0, 0, 0), std=(1, 1, 1), crop_mode='border')
    data = TimmDataset(str(tmp_path), 'train', transform={**size, **plain})
    image = data[0][0][0].numpy() * 255
    assert image.shape == seen.shape
    assert np.abs(image - seen).max() <= 3


def test_16_bit_grey_is_learnt_as_it_is(tmp_path):
    folder = tmp_path / 'train/class'
    folder.mkdir(parents=True)
    Image.fromarray(np.full((8, 8), 100 << 8, np.uint16)).save(
        folder / 'a.png'
    )
    plain = dict(input_size=8, mean=(0, 0, 0), std=(1, 1, 1))
    image = TimmDataset(str(tmp_path), 'train', transform=plain)[0][0]
    assert (image * 255).round().unique().tolist() == [100]


def test_what_is_no_image_is_named(tmp_path):
    for content in (b'', b'no image', b'\x89PNG\r\n\x1a\n'):
        (tmp_path / 'a.png').write_bytes(content)
        with pytest.raises(DataError, match=r'a\.png.* cannot be read'):
            read_image(tmp_path / 'a.png')
