"""Print the requirements of a file whose module cannot be found.

Looking for modules rather than for distributions leaves the maintained
forks of OpenMMLab alone, which go by other names.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

MODULES = {
    'mmcv-lite': 'mmcv',
    'mmsegmentation': 'mmseg',
    'myst-parser': 'myst_parser',
    'onedl-mmcv': 'mmcv',
    'onedl-mmdetection': 'mmdet',
    'onedl-mmengine': 'mmengine',
    'onedl-mmsegmentation': 'mmseg',
    'opencv-python': 'cv2',
    'pytest-xdist': 'xdist',
    'scikit-learn': 'sklearn',
    'setuptools': 'pkg_resources',  # gone since setuptools 82
}

for line in Path(sys.argv[1]).read_text().splitlines():
    requirement = line.split('#')[0].strip()
    name = requirement.split('==')[0]
    if name and find_spec(MODULES.get(name, name)) is None:
        print(requirement)
