"""Malformed inputs: values, how a case is run, and what it is judged by.

Ten cases of each kind are made, the same in every run; in the environment
MALFORMED=100 makes more of them, and MALFORMED_SEED=1 others.
"""

import os
import random
import re
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmvitcompress.utils import cli

COUNT = int(os.environ.get('MALFORMED', 10))
WHOLE = 'MALFORMED' in os.environ
SEED = os.environ.get('MALFORMED_SEED', '0')
NAN, INF = float('nan'), float('inf')
VALUES = (
    *(None, True, False, 0, 1, -1, 10**6, 10**12, -(10**12)),
    *(0.5, -0.5, 1.5, NAN, INF, -INF, 1e30),
    *('', 'abc', 'no/such', '7', b'x', 'é' * 300),
    *([], {}, (), [None], [[]], [1, 'a'], [NAN], [0], [3, 2, 2], [10**6] * 2),
    *(dict(x={}), dict(type=None), dict(type='NoSuchType'), dict(layers=[99])),
)
# how a sentence says what to do
WORDS = r"""
must may need(?:s|ed)? one.of give set take use choose correct write save fetch
remove rename install export add make leave lower check known invalid.choice
required arguments.are invalid.\w+.value expected unrecognized register instead
put get run raise
"""
REMEDY = re.compile(rf'\b({"|".join(WORDS.split())})\b', re.IGNORECASE)
MEMORY, SECONDS = 6 << 30, 60  # more than there is before a case


def cases(kind):
    """Parametrize a test with ``rng``, one for each case of a kind."""
    made = [random.Random(f'{SEED} {kind} {i}') for i in range(COUNT)]
    for i, rng in enumerate(made):
        rng.number = i
    return pytest.mark.parametrize('rng', made, ids=range(COUNT))


def in_turn(rng, choices):
    """One of the choices; every one of them comes before one comes again."""
    choices = sorted(choices, key=str)
    random.Random(SEED).shuffle(choices)
    return choices[rng.number % len(choices)]


def odd(rng, value=None):
    """A value from the list, or what a good one becomes by a slip."""
    slips = [[value], {'x': value}, str(value)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        slips += [-value, value * 1e6, value + 0.5, int(value * 10**6)]
    if isinstance(value, list | tuple) and value:
        at = rng.randrange(len(value))
        slips += [value[:at], [*value, value[at]], value[0]]
        slips += [[*value[:at], odd(rng, value[at]), *value[at + 1 :]]] * 5
    if isinstance(value, dict) and value:
        key = rng.choice(sorted(value, key=str))
        slips += [{k: v for k, v in value.items() if k != key}]
        slips += [value | {key: odd(rng, value[key])}] * 5
        slips += [value | dict(no_such_key=1)]
    return rng.choice(slips if rng.random() < 0.4 else VALUES)


def damaged(rng, content):
    """Bytes that were cut off or changed on their way."""
    content = bytearray(content)
    how, at = rng.randrange(5), rng.randrange(len(content))
    if how == 0:
        del content[at:]
    elif how == 1:
        content[at : at + rng.randrange(1, 2000)] = b''
    elif how == 2:
        end = min(len(content), at + rng.randrange(1, 2000))
        content[at:end] = bytes(end - at)
    else:
        for _ in range(rng.choice((1, 1, 3, 20))):
            at = rng.randrange(len(content))
            content[at] ^= 1 << rng.randrange(8)
    return bytes(content)


def told(value):
    """What a message must hold one of to name a value."""
    if isinstance(value, dict):
        inner = [word for v in value.values() for word in told(v)]
        return [repr(value)[:40], *map(str, value), *inner]
    if isinstance(value, list | tuple):
        inner = [word for v in value for word in told(v)]
        return [repr(value)[1:-1][:40] or '[]', '()', *inner]
    return [repr(value)[:40].rstrip("'"), *filter(None, [str(value)[:40]])]


@contextmanager
def limits():
    """What allocates too much fails, and what hangs ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    size = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, hard))
    # of the processor: others may be at work, too
    before = signal.signal(signal.SIGPROF, _late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _late(*_):
    raise AssertionError(f'takes more than {SECONDS} s')


def accepted(main, words, capsys, folder=None, outs=()):
    """Run ``main`` as a tool's; whether it ended well.

    If it didn't, that has to be in a sentence that holds one of the words and
    a remedy, and with neither a file of ``outs`` nor an unfinished one.
    """
    capsys.readouterr()
    status = 0
    with limits():
        try:
            cli.run(main)
        except SystemExit as stop:
            status = stop.code or 0
    stderr = capsys.readouterr().err
    if folder:
        assert not [*folder.rglob('.part-*')]
    judge(status, stderr, words)
    assert not status or not any(path.exists() for path in outs)
    return not status


def judge(status, stderr, words):
    """What holds of the end of any tool."""
    assert 'Traceback' not in stderr, stderr
    if not status:
        return
    assert status in (1, 2), stderr
    said = stderr.strip().splitlines()[-1].partition(' error: ')[2]
    assert REMEDY.search(said), f'no remedy in: {said}'
    words = (*words, 'memory is short')
    assert any(word in said for word in words), f'{words} not in: {said}'
