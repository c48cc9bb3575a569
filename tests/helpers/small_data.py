"""Data sets in miniature, where the configs look for them by default."""

import io
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
from PIL import Image

from mmvitcompress.datasets.digits import make_digits

SHAPE = (64, 96)  # height and width in pixels


def save(path, pixels):
    """Write an image, its folder included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def noise(rng, *shape):
    """A smooth picture (H, W, 3), so that crops of it differ."""
    small = rng.integers(0, 256, (8, 12, 3), np.uint8)
    return cv2.resize(small, (shape or SHAPE)[::-1])


def folders(root, rng):
    """ImageNet, and Tiny ImageNet: two classes of a few images each."""
    for name, split, count in (
        ('imagenet', 'train', 3),
        ('imagenet', 'val', 1),
    ):
        for target in ('n01440764', 'n01443537'):
            for i in range(count):
                path = root / name / split / target / f'{i}.JPEG'
                save(path, noise(rng, 64, 64))


def pairs(root, rng, splits, labels, suffix='.jpg', images=2):
    """Images and maps of so many labels, in folders of two names each."""
    for img, ann in splits:
        for i in range(images):
            save(root / img / f'{i:02}{suffix}', noise(rng))
            maps = rng.integers(0, labels, (4, 6)).repeat(16, 0).repeat(16, 1)
            save(root / ann / f'{i:02}.png', maps)


def digits(root):
    """The digits, most of them taken away again."""
    make_digits(root, scenes=16)
    for split, count in (('train', 2), ('val', 1)):
        for folder in (root / 'classification' / split).iterdir():
            for path in sorted(folder.iterdir())[count:]:
                path.unlink()


def video(path, rng):
    """Three frames."""
    coding = cv2.VideoWriter_fourcc(*'mp4v')
    writer = cv2.VideoWriter(str(path), coding, 5, SHAPE[::-1])
    for _ in range(3):
        writer.write(noise(rng))
    writer.release()


def downloads(root, rng):
    """One case of each medical data set as it is given away."""
    image, labels = rng.random((2, 8, 8)), rng.integers(0, 4, (2, 8, 8))
    for folder, number in (('train', 1), ('valid', 19), ('test', 2)):
        (root / folder).mkdir(parents=True)
        kind = 'sliceED_0' if folder != 'test' else 'volume_ED'
        part = slice(None) if folder == 'test' else 0
        path = root / folder / f'case_{number:03}_{kind}.npz'
        np.savez(path, img=image[part], label=labels[part])
    for folder in ('train_npz', 'test_vol_h5'):
        (root / folder).mkdir()
    path = root / 'train_npz/case0005_slice000.npz'
    np.savez(path, image=image[0], label=labels[0])
    h5py = __import__('h5py') if find_spec('h5py') else H5PY
    with h5py.File(str(root / 'test_vol_h5/case0008.npy.h5'), 'w') as file:
        file['image'], file['label'] = image, labels
    sets = ('Kvasir', 'CVC-ClinicDB', 'CVC-ColonDB', 'ETIS-LaribPolypDB')
    for folder, s in (
        ('TrainDataset', ''),
        *((f'TestDataset/{name}', 's') for name in sets),
    ):
        save(root / folder / f'image{s}/1.png', noise(rng, 8, 8))
        save(root / folder / f'mask{s}/1.png', rng.choice([0, 255], (8, 8)))


def make_data(root):
    """Everything that the commands of the documents read.

    Args:
        root: The clone.
    """
    rng, data = np.random.default_rng(0), root / 'data'
    folders(data, rng)
    digits(data / 'digits')
    splits = ('training', 'validation')
    named = [(f'images/{s}', f'annotations/{s}') for s in splits]
    pairs(data / 'ade/ADEChallengeData2016', rng, named, 151)
    named = [(f'images/{s}', f'annotations/{s}') for s in ('train', 'val')]
    pairs(data / 'mine', rng, named, 2)
    # a fifth of them is held out, by their names
    nuclei = [('train', 'semantic/train')]
    pairs(data / 'nuclei', rng, nuclei, 2, '.png', images=20)
    for name in ('FOLDER/a.png', 'FOLDER/b.png', 'holiday/a.jpg'):
        save(root / name, noise(rng))
    save(root / 'street.jpg', noise(rng))
    video(root / 'ride.mp4', rng)
    downloads(root / 'DOWNLOAD', rng)


class FakeHDF5(dict):
    """What is needed of ``h5py.File`` where h5py isn't installed."""

    def __init__(self, path, mode='r'):
        content = io.BytesIO(Path(path).read_bytes()) if mode == 'r' else None
        super().__init__(np.load(content) if content else {})
        self.path, self.mode = path, mode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.mode == 'w':
            with open(self.path, 'wb') as file:
                np.savez(file, **self)


H5PY = SimpleNamespace(File=FakeHDF5)
