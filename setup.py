"""Packaging: what ``pip install`` needs, and OpenMMLab's ``.mim`` folder."""

import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
PACKAGE = 'mmvitcompress'
SHIPPED = ('configs', 'tools', 'model-index.yml')

# None of these is in install_requires: the forks share the import names of
# OpenMMLab's own releases, and pip would install one set over the other.
OPENMMLAB = [
    'mmengine>=0.10.6',
    'mmcv-lite==2.1.0',
    'mmsegmentation==1.2.2',
    'mmdet==3.3.0',
    'ftfy',
    'regex',
    'setuptools<82',
    'tensorboard',
]
ONEDL = [
    'onedl-mmengine>=0.10.12',
    'onedl-mmcv>=2.3.6',
    'onedl-mmsegmentation>=1.4.2',
    'onedl-mmdetection>=3.5.1',
    'setuptools<82',
    'tensorboard',
]
DEMO = ['matplotlib', 'scikit-learn']
EXPORT = ['onnx', 'onnxruntime', 'onnxscript', 'safetensors']
OPENVINO = ['nncf', 'openvino']
TEST = [
    'fvcore',
    'hypothesis',
    'pytest',
    'pytest-xdist',
    'ruff',
    'scipy',
    'wheel',
]


def version() -> str:
    """The version that mmvitcompress/version.py states."""
    names: dict[str, str] = {}
    exec((ROOT / PACKAGE / 'version.py').read_text(), names)
    return names['__version__']


def ship(package: Path, link: bool = False) -> None:
    """Put configs and tools into ``package``/.mim, where mim looks.

    Args:
        package: The package's folder, in the source or the build tree.
        link: Whether to link rather than to copy, so that edits show.
    """
    mim = package / '.mim'
    shutil.rmtree(mim, ignore_errors=True)
    mim.mkdir(parents=True)
    for name in SHIPPED:
        source, target = ROOT / name, mim / name
        if link:
            target.symlink_to(os.path.relpath(source, mim))
        elif source.is_dir():
            ignored = shutil.ignore_patterns('__pycache__', '*.pyc')
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copyfile(source, target)


class BuildPy(build_py):
    """Builds the package together with its ``.mim`` folder."""

    def run(self):
        super().run()
        if self.editable_mode:
            ship(ROOT / PACKAGE, link=True)
        else:
            ship(Path(self.build_lib, PACKAGE))


class Sdist(sdist):
    """Makes a source archive with a ``.mim`` folder, as OpenMMLab does."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        ship(Path(base_dir, PACKAGE))


setup(
    name=PACKAGE,
    version=version(),
    description='Compressed Vision Transformers as backbones for dense '
    'prediction, for MMSegmentation and MMDetection',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8')
    if (ROOT / 'README.md').exists()
    else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    classifiers=[
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    include_package_data=True,
    python_requires='>=3.11',
    # mmvitcompress/compat/versions.py says what needs so new ones
    install_requires=['torch>=2.7', 'torchvision', 'timm>=1.0.21', 'numpy'],
    extras_require={
        'openmmlab': OPENMMLAB,
        'onedl': ONEDL,
        'demo': DEMO,
        'export': EXPORT,
        'openvino': OPENVINO,
        'test': TEST + DEMO + EXPORT,
    },
    cmdclass={'build_py': BuildPy, 'sdist': Sdist},
    zip_safe=False,
)
