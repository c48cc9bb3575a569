"""Missing and mismatched packages are told before they fail."""

import subprocess
import sys
from importlib import metadata

import pytest

from mmvitcompress.compat.versions import (
    OLDEST,
    installed_version,
    require,
    require_installed,
)
from mmvitcompress.errors import DependencyError


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put a package in front of the installed one of its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name, version=None, init='', **files):
        if version:
            files['version.py'] = f"__version__ = '{version}'\n"
        for path, text in {'__init__.py': init, **files}.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return make


@pytest.fixture
def upstream(fake, monkeypatch):
    """The releases of the reference set, whichever are installed."""

    def version(distribution):
        raise metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(metadata, 'version', version)
    fake('mmengine', '0.10.7')
    fake('mmcv', '2.1.0')
    fake('mmseg', '1.2.2')
    fake('mmdet', '3.3.0')


@pytest.fixture
def absent(monkeypatch):
    """Make packages look as if they were not installed."""

    def hide(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


def message(*modules):
    with pytest.raises(DependencyError) as caught:
        require(*modules)
    return str(caught.value)


def test_what_is_installed_passes():
    require('mmseg', 'mmdet', 'mmcv', 'mmengine', 'timm')


def test_the_reference_set_passes(upstream):
    require('mmseg', 'mmdet')


@pytest.mark.parametrize('name', ['mmseg', 'mmdet', 'mmcv', 'mmpretrain'])
def test_a_missing_package_is_named_with_the_remedy(upstream, absent, name):
    absent(name)
    assert message(name) == (
        f'{name} cannot be used here: {name} is not installed: '
        "pip install '.[openmmlab]' in the clone of mmvitcompress"
    )


def test_a_folder_of_the_same_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / 'mmseg').mkdir()
    monkeypatch.delitem(sys.modules, 'mmseg', raising=False)
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    with pytest.raises(DependencyError, match='mmseg is not installed'):
        require_installed('mmseg')


def test_what_mmseg_forgets_to_declare(absent):
    absent('regex', 'ftfy')
    assert 'ftfy, regex are not installed' in message('mmseg')
    require('mmdet')


def test_all_problems_are_told_at_once(upstream, absent, fake):
    absent('mmdet', 'ftfy')
    fake('mmcv', '2.2.0')
    text = message('mmseg', 'mmdet')
    assert 'ftfy, mmdet are not installed' in text
    assert 'mmseg 1.2.2 refuses mmcv 2.2.0' in text


@pytest.mark.parametrize('version', ['2.2.0', '2.2.0rc1', '2.3.6', '3.0'])
@pytest.mark.parametrize('name', ['mmseg', 'mmdet'])
def test_upstream_refuses_a_newer_mmcv(upstream, fake, name, version):
    fake('mmcv', version)
    text = message(name)
    assert f'refuses mmcv {version}: pip uninstall' in text
    assert "pip install '.[openmmlab]' in the clone" in text
    require('mmcv')


def test_mmcv_2_1_is_not_refused(upstream, fake):
    fake('mmcv', '2.1.10')
    require('mmseg', 'mmdet')


@pytest.mark.parametrize(
    ('name', 'version'),
    [
        ('mmengine', '0.10.5'),
        ('mmcv', '1.7.2'),
        ('mmseg', '0.30.0'),
        ('mmdet', '2.28.2'),
    ],
)
def test_an_old_release_is_refused(upstream, fake, name, version):
    fake(name, version)
    assert f'{name} {version} is older than' in message(name)


@pytest.mark.parametrize(
    ('name', 'version', 'remedy'),
    [
        ('torch', '2.6.0+cu124', 'pip install --upgrade torch torchvision'),
        ('timm', '1.0.20', 'pip install --upgrade timm'),
    ],
)
def test_what_every_import_needs(monkeypatch, name, version, remedy):
    monkeypatch.setattr(sys.modules[name], '__version__', version)
    text = message('timm')
    assert f'{name} {version} is older than {OLDEST[name]}: {remedy}' in text
    monkeypatch.setattr(sys.modules[name], '__version__', OLDEST[name])
    require('timm')


def test_the_forks_work_together_and_are_not_overwritten(
    fake, absent, tmp_path
):
    """Other distributions, and versions that upstream would refuse."""
    for name, distribution, version in (
        ('mmengine', 'onedl-mmengine', '0.10.12'),
        ('mmcv', 'onedl-mmcv', '2.3.6'),
        ('mmseg', 'onedl-mmsegmentation', '1.4.2'),
        ('mmdet', 'onedl-mmdetection', '3.5.1'),
    ):
        asks = (
            'from importlib.metadata import version\n\n'
            f"__version__ = version('{distribution}')\n"
        )
        fake(name, **{'version.py': asks})
        folder = distribution.replace('-', '_')
        info = tmp_path / f'{folder}-{version}.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(
            f'Metadata-Version: 2.1\nName: {distribution}\n'
            f'Version: {version}\n'
        )
        assert installed_version(name) == version
    require('mmseg', 'mmdet')
    absent('mmdet')
    assert "pip install '.[onedl]' in the clone" in message('mmdet')


def test_setuptools_without_pkg_resources(absent, fake):
    uses = {'utils/package_utils.py': 'def f():\n    import pkg_resources\n'}
    fake('mmengine', '0.10.7', **uses)
    require('mmengine')
    absent('pkg_resources')
    text = message('mmengine')
    assert 'imports pkg_resources' in text
    assert 'pip install "setuptools<82"' in text
    # a release that does not import it
    fake(
        'mmengine',
        '0.11.0',
        **{'utils/package_utils.py': 'from importlib import metadata\n'},
    )
    require('mmengine')


def test_torchvision_built_for_another_torch(fake):
    fake(
        'torchvision',
        '0.1.2',
        init="raise RuntimeError('operator torchvision::nms does not exist')",
    )
    text = message('mmdet')
    assert 'torchvision 0.1.2 does not fit torch' in text
    assert 'operator torchvision::nms does not exist' in text
    assert '--force-reinstall torch torchvision' in text
    require('mmengine')


@pytest.mark.slow
def test_nothing_heavy_is_imported():
    script = (
        'import sys\n'
        'from mmvitcompress.compat import require\n'
        "require('mmseg', 'mmdet')\n"
        "print([m for m in ('mmseg', 'mmdet', 'mmcv') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert output.stdout == '[]\n'
