"""The stand-in for ``mmcv._ext``: when it is found, and what it says."""

import importlib
import importlib.util
import subprocess
import sys

import pytest
import torch
from mmcv.utils.ext_loader import check_ops_exist
from mmengine.utils.dl_utils import mmcv_full_available

from mmvitcompress.compat import install
from mmvitcompress.compat.mmcv_ext import StandInFinder


def test_everything_that_needs_ops_can_be_imported():
    for name in ('mmcv.ops', 'mmseg.models', 'mmdet.models'):
        importlib.import_module(name)
    assert importlib.import_module('mmcv.ops').get_compiler_version()


def test_it_is_a_module_like_any_other():
    spec = importlib.util.find_spec('mmcv._ext')
    module = importlib.import_module('mmcv._ext')
    assert spec.name == module.__name__ == 'mmcv._ext'
    assert module.__spec__.loader is not None
    assert not hasattr(module, '__path__')


@pytest.mark.filterwarnings('ignore:.*find_loader:DeprecationWarning')
def test_mmengine_and_mmcv_take_the_operations_for_present():
    assert mmcv_full_available()
    assert check_ops_exist()


def test_other_operations_say_what_is_missing():
    from mmcv.ops import deform_conv2d

    image = torch.zeros(1, 2, 5, 5)
    with pytest.raises(NotImplementedError, match='deform_conv_forward'):
        deform_conv2d(image, torch.zeros(1, 18, 3, 3), torch.ones(2, 2, 3, 3))
    with pytest.raises(NotImplementedError, match='install a compiled mmcv'):
        importlib.import_module('mmcv._ext').no_such_operation()


def test_installing_twice_changes_nothing():
    install()
    before = list(sys.meta_path)
    install()
    assert sys.meta_path == before
    finders = [isinstance(finder, StandInFinder) for finder in before]
    assert finders.count(True) == 1


def test_it_answers_to_one_name_only():
    finder = StandInFinder()
    for name in ('mmcv', 'mmcv.ops', 'mmcv._ext.nms', '_ext', 'other._ext'):
        assert finder.find_spec(name) is None


@pytest.mark.slow
def test_a_compiled_extension_is_left_alone(tmp_path):
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').write_text('')
    (package / '_ext.py').write_text('compiled = True\n')
    script = (
        'import sys\n'
        'from mmvitcompress.compat import install\n'
        'install()\n'
        'assert "mmcv" not in sys.modules\n'
        'sys.path.insert(0, sys.argv[1])\n'
        'import mmcv._ext\n'
        'assert mmcv._ext.compiled\n'
        'print(mmcv._ext.__file__)'
    )
    output = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert output.stdout == f'{package / "_ext.py"}\n'


def test_without_mmcv_there_is_no_extension_either(monkeypatch):
    monkeypatch.delitem(sys.modules, 'mmcv._ext', raising=False)
    monkeypatch.setitem(sys.modules, 'mmcv', None)
    with pytest.raises(ModuleNotFoundError, match='mmcv'):
        importlib.import_module('mmcv._ext')
