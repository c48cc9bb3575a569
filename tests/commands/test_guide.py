"""The pages that tell the whole story; test_pages.py says how it is done."""

import shlex

import pytest
from documents import PAGES, blocks, commands
from story import EXCLUDED, GUIDE, follow

pytestmark = pytest.mark.docs


@pytest.mark.parametrize('name', GUIDE)
def test_everything_runs(name, root, data):
    (page,) = (page for page in PAGES if page.name == name)
    found = [*map(shlex.join, commands(page)), *blocks(page, 'python')]
    assert set(follow(page, root, data)) == {*found} - {*EXCLUDED}
