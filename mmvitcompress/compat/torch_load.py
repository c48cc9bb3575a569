"""MMEngine's training checkpoints under ``torch.load(weights_only=True)``.

Since torch 2.6 ``torch.load`` refuses every class that it does not know.
MMEngine 0.10's own checkpoints hold a few harmless ones: the log history, as
``HistoryBuffer``, and NumPy numbers and arrays. They are allowed here by name;
safety stays on, and a file that holds anything else is refused as before.
"""

from collections.abc import Callable
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

# NumPy 2 moved the module; files written by either are read by either
NUMPY_MODULES = ('numpy.core.multiarray', 'numpy._core.multiarray')

NUMBERS = '?bBhHiIlLqQefd'


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load`` read MMEngine's own training checkpoints."""
    torch.serialization.add_safe_globals(harmless_globals())


def harmless_globals() -> list[tuple[Callable, str]]:
    """The callables that MMEngine's checkpoints need, with their names.

    Always as pairs: the maintained forks of MMEngine register the bare
    classes for the time of one load and take them away again.
    """
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(code)) for code in NUMBERS}
    return [
        (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_statistic, 'builtins.getattr'),
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
        *((kind, f'{kind.__module__}.{kind.__qualname__}') for kind in dtypes),
        *((reconstruct, f'{module}._reconstruct') for module in NUMPY_MODULES),
        *((scalar, f'{module}.scalar') for module in NUMPY_MODULES),
    ]


def _statistic(owner: object, name: str) -> Callable:
    """What ``getattr`` may do in a checkpoint: name a statistic.

    ``HistoryBuffer`` pickles its methods ``mean``, ``min``, ... as
    ``getattr(HistoryBuffer, 'mean')``. The true ``getattr`` would hand out
    any attribute of any allowed object.

    Raises:
        UnpicklingError: If anything else is asked for.
    """
    if owner is HistoryBuffer and name in ('mean', 'max', 'min', 'current'):
        return getattr(HistoryBuffer, name)
    raise UnpicklingError(
        f'getattr({owner!r}, {name!r}) is not allowed in a checkpoint'
    )
