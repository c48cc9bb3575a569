import pytest
from hypothesis import settings
from mmengine.registry import DefaultScope

# the same examples in every run; to look for more:
# pytest --hypothesis-profile=default
settings.register_profile('repeatable', derandomize=True, deadline=None)
settings.load_profile('repeatable')


@pytest.fixture(autouse=True)
def scopes():
    """Names resolve as in a new process, whatever a test before has set."""
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()
