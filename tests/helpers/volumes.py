"""Small medical volumes, and how they are found again as slices."""

import numpy as np
from PIL import Image

PATIENTS = (1, 2, 19)  # of ACDC's training, test and validation set


def volume(seed, shape=(3, 8, 6), classes=4, high=900.0):
    """Image in 0..high and labels, both (D, H, W)."""
    rng = np.random.default_rng(seed)
    image = rng.random(shape) * high
    image[0, 0, 0], image[-1, -1, -1] = 0, high
    return image, rng.integers(0, classes, shape).astype(np.uint8)


def pixels(path):
    return np.asarray(Image.open(path))


def check_volume(out, split, case, image, labels):
    """The slices in ``out`` are those of ``image``, in their order."""
    names = [f'{case}_slice{i:03}.png' for i in range(len(image))]
    found = sorted((out / 'img_dir' / split).glob(f'{case}_*'))
    assert [path.name for path in found] == names
    grey = image * (255 / max(1, image.max()))
    for index, name in enumerate(names):
        mine = pixels(out / 'img_dir' / split / name)
        assert mine.dtype == np.uint8
        assert np.abs(mine - grey[index]).max() <= 0.5 + 1e-3
        assert (pixels(out / 'ann_dir' / split / name) == labels[index]).all()
