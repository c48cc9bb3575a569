import pytest
import torch

import mmvitcompress  # noqa: F401  (provides mmcv._ext before mmcv is imported)


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors of a few elements are faster on one thread than on many."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
