"""Images for timing: normalised and padded as the models want them."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import nn

from mmvitcompress.analysis.candidates import build_candidate
from mmvitcompress.analysis.images import make_images
from mmvitcompress.errors import ConfigError, DataError
from mmvitcompress.utils.images import image_files, read_image

PREPROCESSOR = dict(
    type='SegDataPreProcessor',
    mean=[10.0, 20.0, 30.0],
    std=[2.0, 4.0, 5.0],
    bgr_to_rgb=True,
    test_cfg=dict(size_divisor=32),
)


def paint(path, colour, size=(8, 6)):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(np.full((*size, 3), colour, np.uint8)).save(path)


@pytest.fixture
def segmentor(make_config):
    config = make_config('upernet')
    config.model.data_preprocessor = PREPROCESSOR
    return config, build_candidate(config)


def test_folder_by_hand(segmentor, tmp_path):
    paint(tmp_path / 'b/second.jpg', (110, 120, 130))
    paint(tmp_path / 'a.png', (30, 40, 50), size=(40, 20))
    (tmp_path / 'notes.txt').write_text('no image')
    images = make_images(str(tmp_path), *segmentor, (24, 32), 3)
    # (30 - 10) / 2, (40 - 20) / 4, (50 - 30) / 5, in RGB; below, padding
    expected = torch.tensor([10.0, 5.0, 4.0]).view(3, 1, 1)
    assert images.shape == (3, 3, 32, 32)
    assert torch.equal(images[0, :, :24], expected.expand(3, 24, 32))
    assert not images[0, :, 24:].any()
    assert torch.allclose(images[1, :, 0, 0], torch.tensor([50.0, 25, 20]))
    assert torch.equal(images[2], images[0])  # there are but two


def test_classifiers_get_what_imagenet_trained_them_on(tmp_path):
    paint(tmp_path / 'a.png', (255, 0, 0))
    images = make_images(str(tmp_path), Config(), nn.Identity(), (4, 4), 1)
    red, green, blue = images[0, :, 0, 0].tolist()
    assert red == pytest.approx((1 - 0.485) / 0.229)
    assert green == pytest.approx(-0.456 / 0.224)
    assert blue == pytest.approx(-0.406 / 0.225)


def test_random_images_have_the_channels_of_the_model(make_config):
    config = make_config('upernet')
    config.model.backbone.in_channels = 1
    config.model.data_preprocessor = dict(
        **PREPROCESSOR | dict(mean=[10.0], std=[2.0], bgr_to_rgb=False)
    )
    model = build_candidate(config)
    images = make_images('random', config, model, (24, 40), 2)
    assert images.shape == (2, 1, 32, 64)
    model.backbone(images)


def test_random_images_are_padded_and_the_same_each_time(segmentor):
    images = make_images('random', *segmentor, (24, 40), 2)
    assert images.shape == (2, 3, 32, 64)
    again = make_images('random', *segmentor, (24, 40), 2)
    assert torch.equal(images, again)


def test_images_are_read_as_in_training(tmp_path):
    """16 bits become the upper 8, and EXIF tells which side is up."""
    from mmcv.transforms import LoadImageFromFile

    grey = np.arange(0, 65536, 2731, np.uint16).reshape(4, 6)
    cv2.imwrite(str(tmp_path / 'a.png'), grey)
    photo = Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3))
    exif = photo.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    photo.save(tmp_path / 'b.jpg', exif=exif, quality=100)
    (tmp_path / '.hidden').mkdir()
    for name in ('._a.jpg', '.hidden/c.png'):
        (tmp_path / name).write_bytes(b'no image')
    first, second = map(read_image, image_files(tmp_path))
    assert np.array_equal(first, (grey >> 8)[..., None].repeat(3, 2))
    assert second.shape == (6, 4, 3)
    for name, found in (('a.png', first), ('b.jpg', second)):
        load = LoadImageFromFile()
        expected = load(dict(img_path=str(tmp_path / name)))['img']
        assert np.array_equal(found, expected)


class Scenes(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        grey = torch.full((3, 6 + index, 8), 50 + index, dtype=torch.uint8)
        return dict(inputs=grey, data_samples=None)


def test_the_config_and_its_data_set(segmentor):
    config, model = segmentor
    with pytest.raises(ConfigError, match='no test_dataloader'):
        make_images('dataset', config, model, (32, 32), 2)
    config.test_dataloader = dict(dataset=dict(type=Scenes))
    images = make_images('dataset', config, model, (32, 32), 3)
    assert images[:, 0, 9, 9].tolist() == [20.0, 20.5, 20.0]


@pytest.mark.parametrize('content', [None, b'no image'])
def test_folders_without_images(segmentor, tmp_path, content):
    if content:
        (tmp_path / 'broken.png').write_bytes(content)
    message = r'broken\.png' if content else 'no images .* found in'
    with pytest.raises(DataError, match=message):
        make_images(str(tmp_path), *segmentor, (32, 32), 1)


def test_no_images_at_all(segmentor):
    with pytest.raises(ConfigError, match='but got 0'):
        make_images('random', *segmentor, (32, 32), 0)
