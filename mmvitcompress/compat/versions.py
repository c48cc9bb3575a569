"""Whether the OpenMMLab stack that is installed can work together.

Packages are looked up by the name they are imported by, since the maintained
forks (``onedl-mmcv`` and so on) install the same modules under other
distribution names. Versions are read from the packages' files: importing
MMDetection only to learn that it cannot be imported would be slow, and its
own errors do not say what to do.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from mmvitcompress.errors import DependencyError

# what a package imports, declared by its distribution or not
NEEDS = {
    'timm': ('torch', 'torchvision'),
    'mmcv': ('mmengine',),
    'mmseg': ('mmengine', 'mmcv', 'torchvision', 'ftfy', 'regex'),
    'mmdet': ('mmengine', 'mmcv', 'torchvision', 'pycocotools'),
}

# torch.compiler.is_exporting came with torch 2.7; timm's ViT has a LayerScale
# of its own before 1.0.21, and takes no device 'meta'; MMEngine before 0.10.6
# registers Adafactor twice on torch 2.5 and later; the others are the first
# releases that build on MMEngine
OLDEST = {
    'torch': '2.7',
    'timm': '1.0.21',
    'mmengine': '0.10.6',
    'mmcv': '2.0.0',
    'mmseg': '1.0.0',
    'mmdet': '3.0.0',
}

# the others are upgraded with the stack
UPGRADES = {
    'torch': 'pip install --upgrade torch torchvision',
    'timm': 'pip install --upgrade timm',
}

# the newest releases that refuse MMCV 2.2 and later when imported
REFUSE_MMCV_2_2 = {'mmseg': '1.2.2', 'mmdet': '3.3.0'}


def require(*modules: str) -> None:
    """Check that packages are installed and known to work together.

    Args:
        modules: Import names, for example ``'mmseg', 'mmdet'``. What they
            need in turn is checked as well.

    Raises:
        DependencyError: If one is missing or does not work with another. The
            message names every problem found and its remedy.
    """
    needed = dict.fromkeys(
        name for module in modules for name in (module, *NEEDS.get(module, ()))
    )
    _refuse(modules, [*_missing(needed), *_conflicts(needed)])


def require_installed(*modules: str) -> None:
    """Check only that packages are installed.

    Raises:
        DependencyError: If one is not.
    """
    _refuse(modules, [*_missing(modules)])


def installed_version(module: str) -> str | None:
    """The version of an installed package, without importing it.

    Returns:
        Its version, or None if it is not installed or does not tell.
    """
    if module in sys.modules:
        return getattr(sys.modules[module], '__version__', None)
    text = _source(module, 'version.py')
    literal = re.search(r"""^__version__\b.*=\s*['"](.+?)['"]""", text, re.M)
    if literal:
        return literal[1]
    # the forks ask for the version of their distribution
    name = re.search(r"""\bversion\(\s*['"](.+?)['"]""", text)
    try:
        return metadata.version(name[1] if name else module)
    except metadata.PackageNotFoundError:
        return None


def _refuse(modules: Iterable[str], problems: list[str]) -> None:
    if problems:
        raise DependencyError(
            f'{" and ".join(modules)} cannot be used here: '
            + '; '.join(problems)
        )


def _missing(modules: Iterable[str]) -> Iterator[str]:
    missing = [name for name in modules if not _is_installed(name)]
    if missing:
        verb = 'is' if len(missing) == 1 else 'are'
        yield f'{", ".join(missing)} {verb} not installed: {_stack()}'


def _conflicts(modules: Iterable[str]) -> Iterator[str]:
    installed = [name for name in modules if _is_installed(name)]
    versions = {name: installed_version(name) for name in installed}
    numbers = {name: _numbers(v) for name, v in versions.items() if v}
    for name, oldest in OLDEST.items():
        if name in numbers and numbers[name] < _numbers(oldest):
            yield (
                f'{name} {versions[name]} is older than {oldest}: '
                f'{UPGRADES.get(name) or _stack()}'
            )
    for name, newest in REFUSE_MMCV_2_2.items():
        if (
            name in numbers
            and numbers[name] <= _numbers(newest)
            and numbers.get('mmcv', ()) >= (2, 2)
        ):
            yield (
                f'{name} {versions[name]} refuses mmcv {versions["mmcv"]}: '
                f'pip uninstall mmcv mmcv-lite onedl-mmcv, then {_stack()}'
            )
    if 'mmengine' in installed:
        yield from _setuptools_problems()
    if 'torchvision' in installed:
        yield from _torchvision_problems()


def _setuptools_problems() -> Iterator[str]:
    imports = {
        'pkg_resources': _source('mmengine', 'utils/package_utils.py'),
        'distutils': _source('mmengine', 'utils/dl_utils/collect_env.py'),
    }
    for module, text in imports.items():
        if re.search(rf'\b(import|from) {module}\b', text) and not (
            _is_installed(module)
        ):
            yield (
                f'this mmengine imports {module}, which setuptools '
                'below 82 provides: pip install "setuptools<82"'
            )


def _torchvision_problems() -> Iterator[str]:
    # nothing but importing it tells whether its operations fit this torch
    try:
        import_module('torchvision')
    except (ImportError, OSError, RuntimeError) as error:
        error = str(error).splitlines()[0]
        yield (
            f'torchvision {installed_version("torchvision")} does not fit '
            f'torch {installed_version("torch")} ({error}): install both '
            'together and from the same source: pip install '
            '--force-reinstall torch torchvision'
        )


def _stack() -> str:
    """The command that installs the stack of which a part is there.

    Of a clone: nothing is released under our name.
    """
    try:
        metadata.version('onedl-mmengine')
    except metadata.PackageNotFoundError:
        return "pip install '.[openmmlab]' in the clone of mmvitcompress"
    return "pip install '.[onedl]' in the clone of mmvitcompress"


def _is_installed(module: str) -> bool:
    spec = find_spec(module)
    # a folder without __init__.py, such as a checkout's root, has no origin
    return spec is not None and spec.origin is not None


def _source(module: str, file: str) -> str:
    """The text of a file of an installed package; empty if there is none."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ''
    path = Path(spec.origin).parent / file
    return path.read_text() if path.is_file() else ''


def _numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version: ``'2.14.1+cpu'`` -> (2, 14, 1).

    Missing ones count as 0.
    """
    numbers = re.findall(r'\d+', version.split('+')[0])
    return tuple(int(n) for n in [*numbers, 0, 0, 0][:3])
