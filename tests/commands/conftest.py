import shutil

import pytest
from small_data import make_data


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """The data that all clones share."""
    folder = tmp_path_factory.mktemp('data')
    make_data(folder)
    return folder


@pytest.fixture
def root(tmp_path):
    """A folder that is gone afterwards: checkpoints are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)
