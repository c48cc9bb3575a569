"""What a wheel, a source archive and an editable install carry."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from mmvitcompress.compat.versions import OLDEST

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
MIM = 'mmvitcompress/.mim/'
IGNORED = shutil.ignore_patterns(
    *('.*', '__pycache__', 'build', '_build', 'data', 'dist', 'work_dirs'),
    '*.egg-info',
)


def run(*command, folder):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
        env={**os.environ, 'PYTHONPATH': ''},
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def build_wheel(source, folder):
    run(
        *('-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation'),
        *('--no-index', '-w', folder, '.'),
        folder=source,
    )
    (wheel,) = folder.glob('*.whl')
    return wheel


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of the repository, so that building leaves nothing in it."""
    folder = tmp_path_factory.mktemp('source') / 'mmvitcompress'
    shutil.copytree(ROOT, folder, ignore=IGNORED)
    return folder


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    return build_wheel(source, tmp_path_factory.mktemp('wheel'))


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def shipped():
    """The files of the repository that belong into .mim."""
    paths = [*(ROOT / 'configs').rglob('*'), *(ROOT / 'tools').rglob('*')]
    return {
        str(path.relative_to(ROOT))
        for path in [*paths, ROOT / 'model-index.yml']
        if path.is_file() and '__pycache__' not in path.parts
    }


def test_wheel_carries_configs_and_tools(wheel):
    names = names_in(wheel)
    mim = {n.removeprefix(MIM) for n in names if n.startswith(MIM)}
    assert mim == shipped()
    assert 'tools/train.py' in mim
    assert any(name.startswith('configs/_base_/') for name in mim)
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(MIM + 'tools/dist_train.sh')
        mode = archive.getinfo(MIM + 'tools/dist_train.sh').external_attr
    assert content == (ROOT / 'tools' / 'dist_train.sh').read_bytes()
    assert mode >> 16 & 0o100  # can be run


def test_wheel_carries_all_of_the_package_and_nothing_else(wheel):
    names = names_in(wheel)
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / 'mmvitcompress').rglob('*.py')
        if '.mim' not in path.parts
    }
    modules = {n for n in names if n.endswith('.py') and MIM not in n}
    assert modules == package
    tops = {name.split('/')[0] for name in names}
    assert {re.sub('-.*', '', top) for top in tops} == {'mmvitcompress'}


def test_wheel_leaves_the_openmmlab_stack_to_extras(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith('/METADATA'))
        metadata = Parser().parsestr(archive.read(name).decode())
    required = {
        re.split('[<>=; ]', line)[0]
        for line in metadata.get_all('Requires-Dist')
        if 'extra ==' not in line
    }
    assert required == {'torch', 'torchvision', 'timm', 'numpy'}
    extras = set(metadata.get_all('Provides-Extra'))
    assert {'openmmlab', 'onedl', 'export', 'test'} <= extras
    assert metadata['License'] == 'Apache-2.0'
    namespace = {}
    exec((ROOT / 'mmvitcompress/version.py').read_text(), namespace)
    assert metadata['Version'] == namespace['__version__']


def test_minimum_versions_agree(wheel):
    """Of the wheel, of the check on import, of what is written."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith('/METADATA'))
        metadata = Parser().parsestr(archive.read(name).decode())
    install = (ROOT / 'docs' / 'install.md').read_text()
    for name in ('torch', 'timm'):
        oldest = OLDEST[name]
        assert f'{name}>={oldest}' in metadata.get_all('Requires-Dist')
        assert f'{name} {oldest} or newer' in install
    python = metadata['Requires-Python'].removeprefix('>=')
    assert f'Python {python} or newer' in install
    checked = '(' + python.replace('.', ', ') + ')'
    assert f'sys.version_info < {checked}' in (ROOT / '.ci/setup').read_text()
    classifiers = [
        line.rpartition(' ')[2]
        for line in metadata.get_all('Classifier')
        if re.search(r':: 3\.\d+$', line)
    ]
    # none is declared that was not tried
    assert python == classifiers[0]
    assert all(f'| {version}, ' in install for version in classifiers)


def test_installed_wheel_works_without_the_repository(wheel, tmp_path):
    run(
        *('-m', 'pip', 'install', '-q', '--no-deps', '--no-index'),
        *('--target', tmp_path, wheel),
        folder=tmp_path,
    )
    train = tmp_path / MIM / 'tools' / 'train.py'
    code = (
        f'import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); '
        f'import mmvitcompress; print(mmvitcompress.__file__); '
        f'from mmvitcompress.engine.backbone_flag import find_backbone; '
        f'print(find_backbone("cait_deit_s").relative_to({str(tmp_path)!r})); '
        f'sys.argv = ["train.py", "--help"]; '
        f'runpy.run_path({str(train)!r}, run_name="__main__")'
    )
    stdout = run('-c', code, folder=tmp_path)
    assert stdout.startswith(str(tmp_path / 'mmvitcompress'))
    assert f'{MIM}configs/_base_/backbones/cait_deit_s.py' in stdout
    assert '--auto-scale-lr' in stdout


def test_wheels_of_the_source_archive_are_the_same(source, wheel, tmp_path):
    code = 'from setuptools import build_meta; build_meta.build_sdist("sdist")'
    run('-c', code, folder=source)
    (path,) = (source / 'sdist').glob('*.tar.gz')
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter='data')
    (unpacked,) = tmp_path.iterdir()
    for name in (
        'LICENSE',
        'CHANGELOG.md',
        'CITATION.cff',
        'docs/conf.py',
        'requirements/openmmlab.txt',
        'tests/arch/test_vit_arch.py',
    ):
        assert (unpacked / name).is_file(), name
    for name in shipped():
        assert (unpacked / name).is_file(), name
        assert (unpacked / MIM / name).is_file(), name
    (tmp_path / 'wheel').mkdir()
    again = build_wheel(unpacked, tmp_path / 'wheel')
    assert names_in(again) == names_in(wheel)


def test_editable_installs_link(source, tmp_path):
    code = (
        'from setuptools import build_meta; '
        f'build_meta.build_editable({str(tmp_path)!r})'
    )
    run('-c', code, folder=source)
    for name in ('configs', 'tools', 'model-index.yml'):
        link = source / MIM / name
        assert link.is_symlink()
        assert link.resolve() == source / name


def distributions(text):
    """Names and pins of a requirements file."""
    lines = (line.split('#')[0].strip() for line in text.splitlines())
    return dict(line.partition('==')[::2] for line in lines if line)


def test_requirements_pin_every_dependency():
    files = {
        path.stem: distributions(path.read_text())
        for path in (ROOT / 'requirements').glob('*.txt')
    }
    for name, pins in files.items():
        assert all(pins.values()), f'{name}.txt has a loose requirement'
    stacks = ({'openmmlab'}, {'onedl'})
    for stack in stacks:
        # what is in several files must agree, the other stack aside
        used = [files[name] for name in files if {name} not in stacks]
        used += [files[name] for name in stack]
        pins = [pin for file in used for pin in file.items()]
        assert len(dict(pins)) == len(set(pins))
    ours, forks = set(files['openmmlab']), set(files['onedl'])
    assert not any(name.startswith('onedl') for name in ours)
    assert not forks & {'mmengine', 'mmcv-lite', 'mmsegmentation', 'mmdet'}


def set_up(*words):
    return subprocess.run(
        [ROOT / '.ci' / 'setup', sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_set_up_refuses_unknown_stacks(tmp_path):
    done = set_up(tmp_path / 'env', 'forks')
    assert done.returncode == 1
    assert "STACK must be openmmlab or onedl, but got 'forks'" in done.stderr
    assert not (tmp_path / 'env').exists()


@pytest.mark.parametrize(
    'held, asked',
    # environments from before there were stacks have an empty mark
    [('onedl\n', 'openmmlab'), ('openmmlab\n', 'onedl'), ('', 'onedl')],
)
def test_set_up_does_not_mix_stacks(held, asked, tmp_path):
    mark = tmp_path / '.made-by-mmvitcompress'
    mark.write_text(held)
    done = set_up(tmp_path, asked)
    assert done.returncode == 1
    assert f'packages of {held.strip() or "openmmlab"}' in done.stderr
    assert 'make setup VENV=' in done.stderr
    assert list(tmp_path.iterdir()) == [mark]


@pytest.mark.parametrize('stack', ['openmmlab', 'onedl'])
def test_set_up_finds_what_either_stack_provides(stack):
    """Either satisfies the other's requirements, by import names."""
    path = ROOT / 'requirements' / f'{stack}.txt'
    missing = run(ROOT / '.ci' / 'missing.py', path, folder=ROOT)
    assert missing.split() == []


def test_make_keeps_an_environment_for_each_stack():
    commands = {
        stack: subprocess.run(
            ['make', '-n', 'setup', f'STACK={stack}', 'PYTHON=python3'],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            # make passes its own variables on to what it runs
            env={k: v for k, v in os.environ.items() if k in ('PATH', 'HOME')},
        ).stdout.split()
        for stack in ('openmmlab', 'onedl')
    }
    assert commands == {
        'openmmlab': ['.ci/setup', "'python3'", "'.venv'", "'openmmlab'"],
        'onedl': ['.ci/setup', "'python3'", "'.venv-onedl'", "'onedl'"],
    }


def test_continuous_integration_is_make_test(tmp_path):
    """The script fails when the tests do."""
    (tmp_path / '.ci').mkdir()
    shutil.copy(ROOT / '.ci' / 'run', tmp_path / '.ci' / 'run')
    for recipe, status in (('true', 0), ('false', 2)):
        (tmp_path / 'Makefile').write_text(f'test:\n\t@{recipe}\n')
        done = subprocess.run([tmp_path / '.ci' / 'run'], capture_output=True)
        assert done.returncode == status, recipe
