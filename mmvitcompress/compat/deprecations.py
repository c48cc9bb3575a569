"""Other libraries' warnings about their own deprecations, silenced by name.

They are meant for whoever calls what is deprecated, which is another of those
libraries, so that nobody who reads them here can do anything about them. All
other warnings stay as they are.
"""

import logging
import warnings

WARNED = (
    # MMSegmentation's heads call MMSegmentation's builder
    '``build_loss`` would be deprecated soon',
    # MMEngine imports it from setuptools
    'pkg_resources is deprecated as an API',
)
"""How such warnings begin, as regular expressions."""

LOGGED = (
    # MMEngine's hooks use MMEngine's client
    '"FileClient" will be deprecated in future',
    '"HardDiskBackend" is the alias of "LocalBackend"',
)
"""How such lines of a log begin."""


class _Others(logging.Filter):
    """Lets pass what isn't in :data:`LOGGED`."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(LOGGED)


def silence_warnings() -> None:
    """Ignore :data:`WARNED`, and nothing else."""
    for message in WARNED:
        warnings.filterwarnings('ignore', message)


def silence_log(logger: logging.Logger) -> None:
    """Leave :data:`LOGGED` out of a run's log, and nothing else."""
    logger.addFilter(_Others())
