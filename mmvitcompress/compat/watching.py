"""Register our types when MMSegmentation, MMDetection or MMCV is imported.

Plain names of our types are found by MMSegmentation and MMDetection once
``mmvitcompress`` has been imported, and MMCV finds its stand-in for compiled
operations. Both take MMEngine, which half of this package does without: so
they wait until one of these libraries is about to be imported.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from types import ModuleType

HOSTS = ('mmcv', 'mmseg', 'mmdet')


class HostWatcher(MetaPathFinder):
    """Registers our types when the first of the hosts is looked for."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> None:
        """Find nothing: the other finders go on."""
        if fullname in HOSTS:
            sys.meta_path.remove(self)
            register()


def register() -> None:
    """Register all models, in MMEngine's root registry too."""
    import_module('mmvitcompress.registry').MODELS.import_from_location()


def watch() -> None:
    """Register our types now if MMEngine is there, else when a host comes."""
    if sys.modules.get('mmengine'):
        register()
    elif not any(isinstance(f, HostWatcher) for f in sys.meta_path):
        sys.meta_path.insert(0, HostWatcher())
