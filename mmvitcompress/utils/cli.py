"""What all tools share; tells a user's errors from bugs.

The same exception may be a mistake in a config or a bug of ours: which one
can be told from where it came, as its message does not say.
"""

import argparse
import errno
import io
import logging
import os
import select
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from traceback import walk_tb
from typing import TextIO

from mmvitcompress.errors import ConfigError, UserError, WriteError
from mmvitcompress.utils.files import NO_ROOM, check_writable, write_json

__all__ = [
    'add_json',
    'parser',
    'run',
    'shortened',
    'while_building',
    'while_reading',
    'write_json',
]


_NAMES = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)

_handle_error = logging.Handler.handleError


class _HelpFormatter(
    argparse.ArgumentDefaultsHelpFormatter,
    argparse.RawDescriptionHelpFormatter,
):
    """Shows defaults and keeps the lines of the description."""


def parser(description: str, **kwargs) -> argparse.ArgumentParser:
    """An argument parser that shows defaults and allows no abbreviations."""
    return argparse.ArgumentParser(
        description=description,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
        **kwargs,
    )


def add_json(
    parser: argparse.ArgumentParser, help: str = 'write the figures'
) -> None:
    """Add ``--json FILE``; where nothing can be written is said at once."""
    parser.add_argument('--json', metavar='FILE', type=_file, help=help)


def _file(path: str) -> str:
    try:
        check_writable(path)
    except WriteError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path


def run(main: Callable[[], None]) -> None:
    """Run a tool's ``main``; turn the user's mistakes into one line.

    Exit status: 0 on success, 1 after a mistake in the input or where a disk
    is full, 2 after a wrong command line (argparse), 141 where nobody reads
    the output any more, as after ``| head``. What others than we raise while
    something is built from a config is a mistake in it; so are names that no
    file can have. Any other exception is a bug and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):  # names need not be UTF-8
            stream.reconfigure(errors='backslashreplace')
    logging.Handler.handleError = _stop_on_broken_pipe
    try:
        try:
            _explain(main)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _drop_unread():
            raise
        sys.exit(141)
    except OSError as error:
        # not always raised where a file is written: loggers, flushed output
        if error.errno not in NO_ROOM:
            raise
        _drop_unread()
        _fail(
            WriteError(
                f'{error.filename or "the output"} cannot be written: '
                f'{error.strerror}; make room or choose another place'
            )
        )


def _explain(main: Callable[[], None]) -> None:
    try:
        main()
    except UserError as error:
        _fail(error)
    except OSError as error:
        if error.errno not in _NAMES:
            raise
        what = shortened(str(error.filename or ''))
        _fail(ConfigError(f'{error.strerror}: {what!r}; choose another name'))
    except Exception as error:
        if _is_short_of_memory(error):
            _fail(
                ConfigError(
                    f'memory is short: {shortened(str(error))}; take smaller '
                    'images, batches or widths'
                )
            )
        if not while_building(error):
            raise
        origin = [module for module, _ in _frames(error)][-1]
        if isinstance(error, KeyError) and origin.startswith('mmengine.regis'):
            # a type that no registry knows
            _fail(ConfigError(str(error.args[0]).split(' More details')[0]))
        # a key that a config's class doesn't know: Python has no type for it
        if 'unexpected keyword argument' in str(error):
            _fail(ConfigError(f'{error}; remove or correct it in the config'))
        if origin.startswith('mmvitcompress'):
            raise  # our own code stumbled, be it over a value of the config
        reason = type(error).__name__
        if str(error):
            reason += f': {shortened(str(error))}'
        _fail(
            ConfigError(
                f'the config cannot be built{_built(error)}: {reason}; '
                'correct it'
            )
        )


def _is_short_of_memory(error: Exception) -> bool:
    # CUDA's has a type, which tools without torch need not import; the CPU's
    # is a RuntimeError like any other
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == 'OutOfMemoryError'
        or (isinstance(error, RuntimeError) and 'CPUAllocator' in str(error))
    )


def _built(error: Exception) -> str:
    """Type and arguments of the last thing that was to be built."""
    found = ''
    for frame, _ in walk_tb(error.__traceback__):
        cfg = frame.f_locals.get('cfg')
        if isinstance(cfg, dict) and isinstance(cfg.get('type'), str):
            rest = {k: v for k, v in cfg.items() if k != 'type'}
            values = ', '.join(f'{k}={v!r:.40}' for k, v in rest.items())
            found = f', at {cfg["type"]}({values})'
    return found


def shortened(name: str) -> str:
    """A name of any length, for messages."""
    return name if len(name) <= 200 else f'{name[:80]}…{name[-40:]}'


def _stop_on_broken_pipe(handler: logging.Handler, record) -> None:
    """Let a broken pipe or a full disk end a run, and not each line of it."""
    error = sys.exc_info()[1]
    if isinstance(error, OSError):
        raise error
    _handle_error(handler, record)


def _drop_unread() -> bool:
    """Let what can't be written any more vanish; whether there is such."""
    unread = False
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
            broken = _is_broken(stream)
        except io.UnsupportedOperation:  # no file, as in a notebook
            continue
        except OSError:
            broken = True
        if broken:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        unread |= broken
    return unread


def _is_broken(stream: TextIO) -> bool:
    """Whether a stream leads to a pipe that nobody reads."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _fail(error: Exception) -> None:
    message = ' '.join(map(shortened, str(error).split()))
    print(f'{Path(sys.argv[0]).name}: error: {message}', file=sys.stderr)
    sys.exit(1)


def while_building(error: BaseException) -> bool:
    """Whether MMEngine was making something of its config.

    That is the runner or anything that a registry or the runner builds, early
    or late: models, data sets, loaders, loops, hooks.
    """
    return any(
        module.split('.')[0] == 'mmengine'
        and (name.startswith('build') or name == 'from_cfg')
        for module, name in _frames(error)
    )


def while_reading(error: BaseException) -> bool:
    """Whether an item of a data set was being read, in this process or in one
    of a loader's workers, whose exceptions come as text."""
    return from_worker(error) or any(
        module == 'torch.utils.data._utils.fetch' or name == '__getitem__'
        for module, name in _frames(error)
    )


def from_worker(error: BaseException) -> bool:
    """Whether torch has raised anew what a loader's worker has; the traceback
    is part of its text, then."""
    return ('torch._utils', 'reraise') in _frames(error)


def while_storing(error: BaseException) -> bool:
    """Whether one of MMEngine's data sets was storing what it has listed."""
    return any(name == '_serialize_data' for _, name in _frames(error))


def _frames(error: BaseException) -> Iterator[tuple[str, str]]:
    """Modules and functions, the outermost first."""
    for frame, _ in walk_tb(error.__traceback__):
        yield frame.f_globals.get('__name__', ''), frame.f_code.co_name
