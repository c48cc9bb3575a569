"""Every command and every example of the documents is executed.

A page is followed from top to bottom in a folder that looks like a fresh
clone: tools and configs of the repository, and a few small images where the
data of ADE20K, ImageNet and so on should lie. What it calls for and does not
make itself (checkpoints of hours of training) is there with random weights. A
new command that nobody runs fails, and so does one whose options, paths or
settings are wrong, or which needs what no line before it has made.

Commands are run as they are written, by the tools' own ``main`` in this
process, and cut short by settings that are appended to them: the tables in
tests/helpers/cuts.py, by tool and by key of the config, not by command. Runs
train for one iteration or epoch (of six images) in 64×64 pixels with heads
of 32 channels, CDCP prunes at once, figures are taken once, ONNX graphs hold
the encoder only, and ``dist_train.sh 8`` starts one process. The checkpoint
that such a run leaves is linked under the name that the config's whole run
would have given it, so that the documents must name that one. timm makes its
models with random weights instead of downloading them.

``make demo`` is its tool, cut in the same way; ``make test``, ``make docs``
and what stands in ``EXCLUDED`` of tests/helpers/story.py is not run.

Blocks of Python are executed too. What is part of a config is added to one
(of MMSegmentation's own, where the page says any) and trained with or run.
"""

import shlex

import pytest
from documents import PAGES, blocks, commands
from story import BEFORE, EXCLUDED, GUIDE, follow

pytestmark = pytest.mark.docs

OTHERS = [page for page in PAGES if page.name not in GUIDE]


@pytest.mark.parametrize('page', OTHERS, ids=lambda page: page.name)
def test_everything_runs(page, root, data):
    found = [*map(shlex.join, commands(page)), *blocks(page, 'python')]
    assert set(follow(page, root, data)) == {*found} - {*EXCLUDED}


def test_tables_name_what_exists():
    found = {shlex.join(words) for page in PAGES for words in commands(page)}
    assert set(EXCLUDED) <= found
    assert {*BEFORE, *GUIDE} <= {page.name for page in PAGES}
