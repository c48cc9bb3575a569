"""What the demo shows, keeps and ends, with tools that take no time."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TALKATIVE = """
import sys
for epoch in range(1, 31):
    print(f'mmengine - INFO - Epoch(train)  [{epoch}][22/22]  loss: 2.3')
    print('UserWarning: something else', file=sys.stderr)
"""
BROKEN = f'{TALKATIVE}\nsys.exit("train.py: error: no data")'
ENDLESS = """
import os, subprocess, sys, time
worker = subprocess.Popen(['sleep', '99'])
with open('pids.part', 'w') as file:
    file.write(f'{os.getpid()} {worker.pid}')
os.rename('pids.part', 'pids')
time.sleep(99)
"""


@pytest.fixture
def demo(tmp_path):
    """Start the demo where training is a script of ours."""
    tools = tmp_path / 'tools'
    (tools / 'dataset_converters').mkdir(parents=True)
    shutil.copy(ROOT / 'tools/demo.py', tools)
    maker = 'def make_digits(folder):\n    print("made")\n'
    (tools / 'dataset_converters/digits.py').write_text(maker)

    def start(script):
        (tools / 'train.py').write_text(script)
        (tools / 'export_pruned.py').write_text('raise SystemExit(3)')
        return subprocess.Popen(
            [sys.executable, 'tools/demo.py', '--out', 'out'],
            cwd=tmp_path,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_the_screen_has_stages_and_the_file_the_rest(demo, tmp_path):
    process = demo(TALKATIVE)
    shown, said = process.communicate(timeout=120)
    assert process.returncode == 1
    log = (tmp_path / 'out/demo.log').read_text()
    assert log.count('Epoch(train)') == log.count('UserWarning') == 2 * 30
    assert log.count('$ python tools/train.py') == 2
    assert 'train a ViT on digits' in shown
    assert 'Epoch(train)' not in shown and 'UserWarning' not in shown
    assert 'tools/export_pruned.py ended with status 3' in said
    assert 'out/demo.log' in said


def test_why_a_tool_failed_is_shown(demo):
    process = demo(BROKEN)
    shown, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert 'train.py: error: no data' in said
    assert 'prune its channels' not in shown


def is_alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().split()[2] != 'Z'
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path('/proc/self').exists(), reason='needs /proc')
def test_what_it_has_started_ends_with_it(demo, tmp_path):
    process = demo(ENDLESS)
    deadline = time.monotonic() + 120
    while not (tmp_path / 'pids').exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    pids = (tmp_path / 'pids').read_text().split()
    assert all(map(is_alive, pids))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
