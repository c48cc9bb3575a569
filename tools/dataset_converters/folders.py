"""Folders that are made whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mmvitcompress.errors import DataError


def count_files(folder: Path) -> int:
    """Number of files in ``folder`` and all folders below it."""
    return sum(len(files) for _, _, files in os.walk(folder))


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``target`` if all goes well.

    It is filled beside ``target`` and renamed at the end. Whatever goes wrong
    before, an interruption included, leaves ``target`` as it was.

    Args:
        target: absolute path of a folder, which may exist.

    Yields:
        The empty folder to fill.

    Raises:
        DataError: if the file system refuses.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _workshop(target) as workshop:
            new, old = workshop / 'new', workshop / 'old'
            new.mkdir()
            yield new
            try:
                if target.exists():
                    target.rename(old)
                new.rename(target)
            finally:
                if old.exists() and not target.exists():
                    old.rename(target)
    except OSError as error:
        raise DataError(
            f'cannot make {target} ({error}); choose another folder or '
            'mend what is wrong with this one'
        ) from error


@contextlib.contextmanager
def _workshop(target: Path) -> Iterator[Path]:
    """A temporary folder on the same file system as ``target``."""
    folder = tempfile.mkdtemp(prefix=f'.{target.name}-', dir=target.parent)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder)
