"""What a run was about when an exception was raised.

The same exception may be a mistake in a config or a bug of ours: which one
can be told from where it came, as its message does not say.
"""

from collections.abc import Iterator
from traceback import walk_tb


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
    return str(error).startswith('Caught ') or any(
        module == 'torch.utils.data._utils.fetch' or name == '__getitem__'
        for module, name in _frames(error)
    )


def _frames(error: BaseException) -> Iterator[tuple[str, str]]:
    """Modules and functions, the outermost first."""
    for frame, _ in walk_tb(error.__traceback__):
        yield frame.f_globals.get('__name__', ''), frame.f_code.co_name
