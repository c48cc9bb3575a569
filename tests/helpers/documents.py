"""The project's Markdown pages, read as those who type from them do."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / 'docs').glob('*.md'),
        *(ROOT / name for name in ('README.md', 'CONTRIBUTING.md')),
    ]
)


def blocks(page, language):
    """The fenced blocks of one language."""
    fence = re.compile(rf'^```{language}\n(.*?)^```', re.M | re.S)
    return fence.findall(page.read_text())


def prose(page):
    """A page without its fenced blocks."""
    return re.sub(r'^```.*?^```', '', page.read_text(), flags=re.M | re.S)


def code_spans(page):
    return re.findall(r'`([^`\n]+)`', prose(page))


def steps(page):
    """What a page tells to do, in order, as (language, text).

    A line of a block of bash, and a code span that reads like one, is a step
    ('bash', line); a block of Python is a step as a whole.
    """
    code = re.compile(r'^```(\S*)\n(.*?)^```|`([^`\n]+)`', re.M | re.S)
    for language, block, span in code.findall(page.read_text()):
        if language == 'python':
            yield language, block
        elif language == 'bash':
            lines = block.replace('\\\n', ' ').splitlines()
            yield from (('bash', line) for line in lines if words_of(line))
        elif re.match(r'(python|bash) ', span):
            yield 'bash', span


def words_of(line):
    """The words of a command line."""
    return shlex.split(line, comments=True)


def commands(page):
    """The words of every command line that a page shows."""
    for language, text in steps(page):
        if language == 'bash':
            yield words_of(text)
