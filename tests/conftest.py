import pytest
from hypothesis import settings
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

# the same examples in every run; to look for more:
# pytest --hypothesis-profile=default
settings.register_profile('repeatable', derandomize=True, deadline=None)
settings.load_profile('repeatable')


@pytest.fixture(autouse=True, scope='session')
def cache(tmp_path_factory):
    """What is remembered from run to run doesn't reach the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(autouse=True)
def scopes():
    """Names resolve and logs go as in a new process, whatever a test before
    has set: its streams may be closed."""
    for kind in (DefaultScope, MMLogger):
        kind._instance_dict.clear()
    yield
    for kind in (DefaultScope, MMLogger):
        kind._instance_dict.clear()
