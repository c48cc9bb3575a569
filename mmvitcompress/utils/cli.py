"""What all command-line tools share."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from mmvitcompress.errors import ConfigError, UserError
from mmvitcompress.utils.files import write_json
from mmvitcompress.utils.tracebacks import while_building

__all__ = ['parser', 'run', 'write_json']


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


def run(main: Callable[[], None]) -> None:
    """Run a tool's ``main``; turn the user's mistakes into one line.

    Exit status: 0 on success, 1 after a mistake in the input, 2 after a wrong
    command line (argparse). Keys and types that nobody knows are mistakes
    where something is built from a config. Any other exception is a bug and
    keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        _fail(error)
    except TypeError as error:
        # how Python reports a key that a config's class does not know
        unknown = 'unexpected keyword argument' in str(error)
        if not (unknown and while_building(error)):
            raise
        _fail(ConfigError(f'{error}; remove or correct it in the config'))
    except KeyError as error:
        # how MMEngine reports a type that no registry knows
        unknown = 'is not in the' in str(error)
        if not (unknown and while_building(error)):
            raise
        _fail(ConfigError(str(error.args[0]).split(' More details')[0]))


def _fail(error: Exception) -> None:
    message = ' '.join(str(error).split())
    print(f'{Path(sys.argv[0]).name}: error: {message}', file=sys.stderr)
    sys.exit(1)
