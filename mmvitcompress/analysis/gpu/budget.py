"""Measuring what fits into a given time, the most important first."""

import gc
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from mmvitcompress.errors import UserError
from mmvitcompress.utils.cli import shortened


class Task(NamedTuple):
    """One row of a section of the report.

    Attributes:
        section: Under which heading it stands.
        row: What is measured.
        seconds: About how long it takes, on a card.
        measure: Does it; what it returns can be written as JSON.
    """

    section: str
    row: str
    seconds: float
    measure: Callable[[], Any]


class Skipped(NamedTuple):
    """What was not measured, and why; whether that was foreseen."""

    section: str
    row: str
    why: str
    failed: bool = False


def measure_within(
    tasks: Iterable[Task],
    minutes: float,
    clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = print,
) -> tuple[dict[str, dict[str, Any]], list[Skipped]]:
    """Do tasks in their order, leaving out those for which time is short.

    A task whose estimate exceeds what is left is skipped, as is one that runs
    out of the device's memory or fails on this machine in any other way;
    those after it may still fit.

    Args:
        tasks: What to do.
        minutes: How long all may take.
        clock: Seconds. Defaults to :func:`time.monotonic`.
        say: Gets a line for each task.

    Returns:
        What was measured, by section and row; and what was not.
    """
    end = clock() + 60 * minutes
    found: dict[str, dict[str, Any]] = {}
    skipped = []
    for section, row, seconds, measure in tasks:
        left = end - clock()
        why, failed = None, False
        if seconds > left:
            why = f'takes about {seconds:.0f} s, of which '
            why += f'{max(left, 0):.0f} s were left'
        else:
            try:
                start = clock()
                result = measure()
                say(f'{section}: {row} ({clock() - start:.0f} s)')
                found.setdefault(section, {})[row] = result
            except torch.OutOfMemoryError:
                why = 'needs more memory than the device has'
            except UserError as error:
                why = str(error)
            except Exception as error:  # what was measured must not be lost
                line = str(error).strip().partition('\n')[0]
                why = f'{type(error).__name__}: {shortened(line)}'
                failed = True
            finally:
                _tidy()
        if why is not None:
            say(f'{section}: {row} skipped: {why}')
            skipped.append(Skipped(section, row, why, failed))
    return found, skipped


def _tidy() -> None:
    """Give memory back before the next models come."""
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
