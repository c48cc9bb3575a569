"""Files that are written as a whole: a reader meets the old one or the new.

What is new is written beside its place, brought to the disk and moved there.
A run that is killed in between, or a full disk, leaves the old file.
"""

import errno
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mmvitcompress.errors import UserError, WriteError

PACKAGE = Path(__file__).parents[1]

# how systems say that nothing more can be written, whatever the file
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file beside ``path`` and move it there if all went well.

    The folder is made if need be. Links stay: what they lead to is replaced.
    What is no file, such as /dev/stdout, is written to directly. Several may
    write the same file at once: the last one wins.

    Args:
        path: Where the file is to be.

    Yields:
        Where to write it.

    Raises:
        WriteError: If the system refuses; the old file is as it was.
    """
    path = Path(path)
    with ExitStack() as stack:
        part = None
        try:
            if not path.exists() or path.is_file():
                target = Path(os.path.realpath(path))
                target.parent.mkdir(parents=True, exist_ok=True)
                folder = tempfile.TemporaryDirectory(
                    prefix='.part-', dir=target.parent
                )
                # of the same name, which some formats store
                part = Path(stack.enter_context(folder), target.name)
            yield part or path
            if part:
                with part.open('rb+') as file:
                    os.fsync(file.fileno())
                part.replace(target)
        except (UserError, BrokenPipeError):
            raise
        except Exception as error:
            refused = error if isinstance(error, OSError) else _refusal(part)
            if refused is None:
                raise
            said = WriteError(
                f'{str(path)!r} cannot be written: '
                f'{refused.strerror or refused}; what was there before is as '
                'it was; make room or choose another place'
            )
            said.errno = refused.errno
            raise said from error


def _refusal(part: Path | None) -> OSError | None:
    """Why the system refuses to write, if it does: libraries in C++ and Rust
    have errors of their own for a full disk."""
    if part is not None:
        try:
            with part.open('ab') as file:
                file.write(bytes(1 << 20))
        except OSError as error:
            return error
    return None


def check_writable(path: str | Path) -> None:
    """Raise WriteError if no file can be written at ``path``.

    Nothing is made: folders that are missing are looked for further up.
    """
    path, reason = Path(path), None
    try:
        place = path if path.exists() else path.parent
        while not place.exists():
            place = place.parent
        if path.is_dir():
            reason = 'it is a folder'
        elif place != path and not place.is_dir():
            reason = f'{str(place)!r} is no folder'
        elif not os.access(place, os.W_OK):
            reason = f'{str(place)!r} is write-protected'
    except OSError as error:
        reason = error.strerror
    if reason:
        raise WriteError(
            f'{str(path)[:80]!r} cannot be written: {reason}; choose another '
            'place'
        )


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8; see :func:`replacing`."""
    if isinstance(content, str):
        content = content.encode()
    with replacing(path) as part:
        part.write_bytes(content)


def shipped(path: str) -> Path | None:
    """What lies at ``path``, as ``configs/imagenet``, in the repository or in
    the wheel's ``.mim`` folder; None if there is no such thing."""
    places = [root / path for root in (PACKAGE / '.mim', PACKAGE.parent)]
    return next(filter(os.path.exists, places), None)


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as JSON, numbers that are not finite, which JSON does
    not have, as null; see :func:`replacing`."""
    # all of it first: what is no JSON must not leave half a file
    text = json.dumps(_finite(content), indent=2, allow_nan=False)
    write_atomically(path, f'{text}\n')


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
