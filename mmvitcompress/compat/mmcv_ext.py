"""A stand-in for ``mmcv._ext``, used only where the real one is missing.

MMCV without compiled operations (``mmcv-lite``, or a build that failed)
cannot import ``mmcv.ops``, and neither MMDetection nor MMSegmentation's heads
import without it. The few operations that matter exist in torch and
torchvision: see :mod:`mmvitcompress.compat.ops`.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

EXTENSION = 'mmcv._ext'


class StandInFinder(MetaPathFinder):
    """Finds ``mmcv._ext`` once every other finder has given up."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The spec of the stand-in, or None for any other module."""
        if fullname != EXTENSION:
            return None
        source = Path(__file__).parent / 'ops' / 'ext.py'
        return spec_from_file_location(fullname, source)


def provide_mmcv_ext() -> None:
    """Make ``import mmcv._ext`` succeed even without compiled operations.

    The finder goes last, so that a compiled extension always wins. Nothing is
    imported here.
    """
    if not any(isinstance(f, StandInFinder) for f in sys.meta_path):
        sys.meta_path.append(StandInFinder())
