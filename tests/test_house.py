"""The rules that keep the house; docs/architecture.md says what for."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from mmvitcompress.tokens import METHODS, TokenMethod, TokenSpec

PACKAGE = Path(__file__).parents[1] / 'mmvitcompress'
PAGE = (PACKAGE.parent / 'docs/architecture.md').read_text()
# a room is used by its own line and by those below it
ROOMS = """
errors version
utils compat
tokens
arch
channels
planning models.layers models.vit models.swin models.classifier
checkpoints
registry models
engine datasets evaluation
analysis
visualization deploy inference api
__init__
"""
FLOOR = {r: i for i, row in enumerate(ROOMS.split('\n')) for r in row.split()}
NETS = 'tokens arch channels planning models.layers models.vit models.swin'
NETS += ' models.classifier checkpoints api'
WITHOUT_TIMM = 'tokens arch channels planning'
HOMES = {
    'torch.load': ['checkpoints.reading'],
    '.load_state_dict': ['checkpoints.load'],
    # and what a classifier holds: its backbone, and its teacher
    'MODELS.build': [
        'engine.build',
        'models.heads.feature_distiller',
        'models.heads.image_classifier',
        'models.losses.distillation',
    ],
}
# what may break a rule
EXEMPTIONS = """
sizes    utils.splits
methods  arch.zoo
methods  engine.hooks.life_regression visualization.life
"""  # an idea of a few lines that several modules share; the arch that CAIT
# reports; and what is about lives alone, where it says how to come by them
EXEMPT = defaultdict(set)
for row in EXEMPTIONS.split('\n'):
    for name in row.split()[1:]:
        EXEMPT[row.split()[0]].add(name)


def read(sources):
    """The tree of every module, by its name."""
    return {name: ast.parse(source) for name, source in sources.items()}


def nodes(modules, *kinds):
    for name, tree in modules.items():
        yield from ((name, n) for n in ast.walk(tree) if isinstance(n, kinds))


def within(name, *rooms):
    return f'{name}.'.startswith(tuple(f'{room}.' for room in rooms))


def imports(modules):
    """(module, module that it imports, lazily or not)."""
    for name, node in nodes(modules, ast.Import, ast.ImportFrom):
        base = getattr(node, 'module', None)
        for alias in node.names:
            target = f'{base}.{alias.name}' if base else alias.name
            _, _, target = target.partition(f'{PACKAGE.name}.')
            places = [
                module
                for found in (target, target.rpartition('.')[0])
                for module in (found, f'{found}.__init__')
                if module in modules
            ]
            yield from ((name, place) for place in places[:1])


def order(modules):
    """Imports go one way."""
    for name, target in imports(modules):
        here, there = (
            FLOOR[max((r for r in FLOOR if within(n, r)), key=len)]
            for n in (name, target)
        )
        if there > here:
            yield name, f'imports {target}'


def circles(modules):
    """No module needs itself."""
    graph = defaultdict(set)
    for name, target in imports(modules):
        graph[name].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield error.args[1][0], ' < '.join(error.args[1])


def words(modules):
    """Names and texts in code, without docstrings, with their nodes."""
    texts = {node.value for _, node in nodes(modules, ast.Expr)}
    for name, node in nodes(modules, ast.AST):
        for field in ('id', 'attr', 'arg', 'name', 'value'):
            word = getattr(node, field, None)
            if isinstance(word, str) and node not in texts:
                yield name, node, word


def methods(modules):
    """Token methods are named in tokens and where models are made."""
    constructors = {
        part
        for name, node in nodes(modules, ast.FunctionDef)
        if (within(name, 'models.backbones') and node.name == '__init__')
        or node.name == 'compress'
        for part in ast.walk(node)
    }
    free = 'tokens', 'models.backbones.named'
    keys = re.compile(rf'\b({"|".join(METHODS)})\b')
    for name, node, word in words(modules):
        named = keys.search(word) and node not in constructors
        if named and not within(name, *free):
            yield name, f'line {node.lineno} names {word}'


def homes(modules):
    """What turns files and configs into models is called in one place."""
    for name, call in nodes(modules, ast.Call):
        for function, rooms in HOMES.items():
            called = ast.unparse(call.func).endswith(function)
            if called and name not in rooms:
                yield name, f'line {call.lineno} calls {function}'


def sizes(modules):
    """Modules are read in one sitting, folders seen at a glance."""
    for name, tree in modules.items():
        lines = tree.body[-1].end_lineno
        free = name.endswith(('__init__', 'errors', 'version'))
        if not free and not 40 <= lines <= 300:
            yield name, f'has {lines} lines'
    folders = Counter(name.rpartition('.')[0] for name in modules)
    for name, count in folders.items():
        if count > 12:
            yield name, f'has {count} modules'


def names(modules):
    """Public names are defined once."""
    first = {}
    for name, tree in modules.items():
        for node in tree.body:
            for made in getattr(node, 'targets', [node]):
                made = getattr(made, 'target', made)
                word = getattr(made, 'name', getattr(made, 'id', '_'))
                if first.setdefault(word, name) != name and word[0] != '_':
                    yield name, f'defines {word}, as {first[word]} does'


def versions(modules):
    """Versions and forks of other packages are known in compat only."""
    for name, node, word in words(modules):
        asked = isinstance(node, ast.Attribute) and word == '__version__'
        named = re.search(r'onedl|^\d+(\.\d+)+$', word)
        if (asked or named) and not within(name, 'compat', 'version'):
            yield name, f'line {node.lineno} has {word}'


def page(modules):
    """What docs/architecture.md calls a module is one."""
    rooms = {name.split('.')[0] for name in modules}
    for name in re.findall(r'`(?:mmvitcompress\.)?(\w+\.[\w.]+)`', PAGE):
        known = {name, f'{name}.__init__'} & {*modules}
        if name.split('.')[0] in rooms and not known:
            yield name, 'is no module'


RULES = (order, circles, methods, homes, sizes, names, versions, page)


@pytest.fixture(scope='module')
def package():
    paths = sorted(PACKAGE.rglob('*.py'))
    return read(
        {
            '.'.join(path.relative_to(PACKAGE).with_suffix('').parts): (
                path.read_text()
            )
            for path in paths
        }
    )


@pytest.mark.parametrize('rule', RULES)
def test_rules_are_kept(rule, package):
    broken = [*rule(package)]
    exempt = EXEMPT[rule.__name__]
    assert not '\n'.join(' '.join(b) for b in broken if b[0] not in exempt)
    assert not exempt - {name for name, _ in broken}, 'needed no more'


@pytest.mark.parametrize(
    'rule, sources',
    [
        (order, {'arch.a': 'def f():\n import mmvitcompress.engine.b'}),
        (circles, {'arch.a': 'from mmvitcompress.arch import b'}),
        (methods, {'arch.a': 'f(token_merging=1)'}),
        (methods, {'models.backbones.a': 'x = "token_merging.layers"'}),
        (homes, {'arch.a': 'mmengine.MODELS.build({})'}),
        (sizes, {'arch.a': '\n' * 300 + 'x = 1'}),
        (names, {'arch.a': 'A: int = 1', 'arch.c': 'def A(): ...'}),
        (versions, {'arch.a': 'timm.__version__ < new'}),
    ],
)
def test_rules_see_what_breaks_them(rule, sources):
    fine = {
        'arch.b': 'from mmvitcompress.arch.a import f' + '\n' * 40 + 'x = 1',
        'engine.b': '"""Neither token_merging nor onedl."""' + '\n' * 40 + 'y',
    }
    assert not [*rule(read(fine))]
    assert [*rule(read({**fine, **sources}))]


IMPORT = """
import json, pkgutil, sys
from importlib import import_module

before = {*sys.modules}
for name in sys.argv[1:]:
    room = import_module('mmvitcompress.' + name)
    for module in pkgutil.iter_modules(getattr(room, '__path__', [])):
        import_module(room.__name__ + '.' + module.name)
new = {name.partition('.')[0] for name in {*sys.modules} - before}
print(json.dumps([*(new - {*sys.stdlib_module_names})]))
"""


@pytest.mark.parametrize(
    'first, rooms', [('torch', WITHOUT_TIMM), ('torch, timm', NETS)]
)
def test_nets_need_no_openmmlab(first, rooms):
    done = subprocess.run(
        [sys.executable, '-c', f'import {first}{IMPORT}', *rooms.split()],
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == [PACKAGE.name]


def test_the_page_shows_the_rooms():
    block = PAGE.split('```text\n')[1].split('\n```')[0]
    rows = [row.split('  ')[0] for row in block.split('\n')]
    assert [*rows, '__init__'] == ROOMS.strip().split('\n')


def test_the_page_names_the_hooks_of_token_methods():
    recipe = PAGE.split('a token method?')[1].split('\n#')[0]
    known = {*dir(TokenSpec), *dir(TokenMethod), *TokenSpec.__annotations__}
    known |= {'TokenSpec', 'TokenMethod', 'Size', 'METHODS', 'tokens', 'undo'}
    known.add('StagedSpec')
    assert {*re.findall(r'`(\w+)`', recipe)} <= known
