import numpy as np
import pytest
from dataset_converters.digits import make_digits
from PIL import Image


@pytest.fixture(scope='session')
def digits_root(tmp_path_factory):
    """A small digits tree: 16 training and 4 validation scenes of 96x96."""
    root = tmp_path_factory.mktemp('digits') / 'tree'
    assert make_digits(root, scenes=16, size=96, seed=3)
    return root


@pytest.fixture
def save_pair():
    """Write an image and its label map, both of the map's size."""

    def save(image_path, label_path, labels):
        labels = np.asarray(labels, np.uint8)
        for path in (image_path, label_path):
            path.parent.mkdir(parents=True, exist_ok=True)
        rgb = np.full((*labels.shape, 3), 90, np.uint8)
        Image.fromarray(rgb).save(image_path)
        Image.fromarray(labels).save(label_path)

    return save
