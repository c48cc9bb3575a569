import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def scopes():
    """Names resolve as in a new process, whatever a test before has set."""
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()
