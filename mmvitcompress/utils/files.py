"""Files that are written as a whole: a reader meets the old one or the new.

What is new is written beside its place, brought to the disk and moved there.
A run that is killed in between, or a full disk, leaves the old file.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file beside ``path`` and move it there if all went well.

    The folder is made if need be. Links stay: what they lead to is replaced.
    What is no file, such as /dev/stdout, is written to directly.

    Args:
        path: Where the file is to be.

    Yields:
        Where to write it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.part')
    try:
        yield part
        with part.open('rb+') as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8; see :func:`replacing`."""
    if isinstance(content, str):
        content = content.encode()
    with replacing(path) as part:
        part.write_bytes(content)


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as JSON; see :func:`replacing`."""
    # all of it first: what is no JSON must not leave half a file
    write_atomically(path, json.dumps(content, indent=2) + '\n')
