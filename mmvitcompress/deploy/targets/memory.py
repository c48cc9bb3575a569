"""The memory that a process needs for a file and its runtime.

A runtime's allocator is its own, so the process is asked: one that loads the
file and runs it, and nothing else.
"""

import json
import subprocess
import sys
from pathlib import Path

from mmvitcompress.deploy.targets import TARGETS
from mmvitcompress.errors import RunError

STATUS = Path('/proc/self/status')
RESET = Path('/proc/self/clear_refs')


def process_memory_mb(
    target: str,
    path: str | Path,
    precision: str,
    size: tuple[int, int, int, int],
    threads: int,
) -> float | None:
    """Peak of resident memory while a file is loaded and run twice, beyond
    what Python, torch and images took before.

    Args:
        target: Name of the runtime.
        path: The file.
        precision: Of its run.
        size: Of the images, (B, C, H, W).
        threads: To run on.

    Returns:
        MiB; None on systems other than Linux, which keep no such account.

    Raises:
        RunError: If the process fails.
    """
    if not RESET.exists():
        return None
    words = [target, str(path), precision, str(threads), *map(str, size)]
    done = subprocess.run(
        [sys.executable, '-m', __name__, *words],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ['no message']
        raise RunError(
            f'{path} could not be run under {target} in a process of its own: '
            f'{last[0]}; leave --memory out'
        )
    return json.loads(done.stdout.splitlines()[-1])


def _kib(field: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f'{field}:'):
            return int(line.split()[1])
    raise KeyError(field)


def _main(
    target: str, path: str, precision: str, threads: str, *size: str
) -> float:
    import torch

    torch.set_num_threads(int(threads))
    TARGETS[target].require()
    images = torch.zeros(*map(int, size))
    RESET.write_text('5')  # the peak starts anew
    before = _kib('VmRSS')
    graph = TARGETS[target].load(path, precision)
    with torch.inference_mode():
        for _ in range(2):
            graph(images)
    return (_kib('VmHWM') - before) / 1024


if __name__ == '__main__':
    print(json.dumps(_main(*sys.argv[1:])))
