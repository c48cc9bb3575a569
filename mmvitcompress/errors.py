"""Errors that a user can mend.

Tools print these as one line and exit with status 1; everything else is a
bug and keeps its traceback. Every message names the offending value and the
remedy.
"""


class UserError(Exception):
    """Base class of all errors that are the input's fault, not ours."""


class ConfigError(UserError, ValueError):
    """An argument or configuration value is wrong."""


class CheckpointError(UserError, ValueError):
    """A checkpoint is missing, unreadable, unsafe, or of another model."""


class MissingCheckpointError(CheckpointError):
    """There is no such checkpoint."""


class DataError(UserError, ValueError):
    """A data set is missing, half unpacked, or in another layout."""


class DivergenceError(UserError, ArithmeticError):
    """A loss, weight or score of a run is no longer finite."""


class DependencyError(UserError, ImportError):
    """A needed package is missing or in a version known not to work."""


class WriteError(UserError, OSError):
    """A file can't be written: a full disk, a folder that is locked."""


class RunError(UserError, RuntimeError):
    """One of several runs failed; its log, or the report, says why."""
