"""A validation set where there is none: held out by the files' names."""

import hashlib
import os
from pathlib import Path

from mmvitcompress.errors import ConfigError


def belongs(path: str, hold_out: float, held_out: bool) -> bool:
    """Whether a file is part of one side of a split.

    Args:
        path: Of the file; its folders make no difference.
        hold_out: Share of all files that is set aside, in [0, 1); 0 for none.
        held_out: Whether the side is the one that is set aside.
    """
    digest = hashlib.sha256(os.fsencode(Path(path).name)).hexdigest()
    return (int(digest[:8], 16) / 16**8 < hold_out) == held_out


def check_share(hold_out: float, held_out: bool) -> None:
    """Raise ConfigError if there is no such share, or nothing set aside."""
    if not 0 <= hold_out < 1 or (held_out and not hold_out):
        raise ConfigError(f'hold_out must lie in (0, 1), but got {hold_out}')
