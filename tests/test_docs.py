"""Documents keep their word: links, configs, commands, examples, figures.

Here they are only parsed, which names what is wrong at once; tests/commands
runs every command and every example, and ``make docs`` builds the site.
"""

import importlib.util
import inspect
import itertools
import re
import sys
from pathlib import Path

import pytest
import yaml
from documents import PAGES, ROOT, blocks, code_spans, commands, prose
from mmengine.config import Config

from mmvitcompress import __version__
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.registry import HOOKS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from mmvitcompress.visualization.curve import read_results

# Python files of other projects that the documents name
FOREIGN = {'tools/dataset_converters/synapse.py', 'potsdam.py'}
# what may stand in a line to be typed besides our tools and make
SHELL = {'cd', 'export', 'git', 'pip', 'source'}

each_page = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)


# -- reading Markdown ---------------------------------------------------------


def slugs(page):
    """Anchors of a page's headings, as code hosts and MyST make them."""
    headings = re.findall(r'^#+ (.+)$', prose(page), re.M)
    return {
        re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
        for heading in headings
    }


def expanded(pattern):
    """'a_{b,c}' → 'a_b', 'a_c'."""
    parts = re.split(r'\{([^{}]*)\}', pattern)
    choices = [
        part.split(',') if i % 2 else [part] for i, part in enumerate(parts)
    ]
    return [''.join(choice) for choice in itertools.product(*choices)]


def is_placeholder(name):
    """Whether a name stands for others: <head>_….py, {head}_….py."""
    return '<' in name or re.search(r'\{\w+\}', name) or '*' in name


def python_files(page):
    """Names of Python files that a page mentions."""
    text = '\n'.join([*code_spans(page), *blocks(page, 'bash')])
    for name in re.findall(r'[^\s=`\'"()]+\.py\b', text):
        if not is_placeholder(name) and name not in FOREIGN:
            yield from expanded(name)


# -- links and files ----------------------------------------------------------


@each_page
def test_links_resolve(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', prose(page)):
        if re.match(r'https?://', target):
            continue
        path, _, anchor = target.partition('#')
        linked = page.parent / path if path else page
        assert linked.exists(), f'{target}: no such file'
        if anchor:
            assert anchor in slugs(linked), f'{target}: no such heading'


@each_page
def test_named_files_exist(page):
    folders = [ROOT, ROOT / 'configs', ROOT / 'configs/imagenet']
    folders += [ROOT / 'configs/distill', ROOT / 'configs/tables']
    folders += [ROOT / 'configs/_base_/backbones', ROOT / 'tools']
    folders += [ROOT / 'mmvitcompress', page.parent]
    for name in python_files(page):
        pattern = name.replace('…', '*')
        assert any(any(f.glob(pattern)) for f in folders), name


def test_every_config_is_listed_once():
    page = ROOT / 'docs/configs.md'
    listed = []
    for section in page.read_text().split('\n## ')[1:]:
        folder = re.search(r'`(configs/[^`]*)`', section.split('\n')[0])[1]
        cells = re.findall(r'^\| (`[^|]+\.py`[^|]*) \|', section, re.M)
        for span in re.findall(r'`([^`]+\.py)`', ''.join(cells)):
            listed += [folder + name for name in expanded(span)]
    configs = ROOT / 'configs'
    folders = [configs, configs / 'imagenet', configs / 'distill']
    folders += [configs / 'tables', configs / '_base_/backbones']
    files = [path for folder in folders for path in folder.glob('*.py')]
    exist = {str(path.relative_to(ROOT)) for path in files}
    assert len(set(listed)) == len(listed)
    assert set(listed) - exist == set(), 'listed in docs/configs.md only'
    assert exist - set(listed) == set(), 'not listed in docs/configs.md'


def test_every_page_is_in_the_contents():
    contents = '\n'.join(blocks(ROOT / 'docs/index.md', '{toctree}'))
    named = set(re.findall(r'^(?:[^:`\n]*<)?([\w/]+)>?$', contents, re.M))
    pages = {path.stem for path in (ROOT / 'docs').glob('*.md')}
    assert pages - named == {'index'}
    assert named - pages == {'api/mmvitcompress'}


# -- commands and examples ----------------------------------------------------


def load_tool(name):
    spec = importlib.util.spec_from_file_location(
        f'tool_{name}', ROOT / f'tools/{name}.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(tool, words, monkeypatch):
    """What the tool's own parser makes of a command line."""
    monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *words])
    try:
        return load_tool(tool).parse_args()
    except SystemExit as stop:
        raise AssertionError(f'tools/{tool}.py refuses {words}') from stop


def check_options(args):
    """Overridden settings exist in the config, or at least their parent."""
    configs = getattr(args, 'configs', None) or [getattr(args, 'config', None)]
    for key in getattr(args, 'cfg_options', None) or {}:
        for config in configs:
            node = Config.fromfile(ROOT / config)
            for part in key.split('.')[:-1]:
                node = node[int(part)] if isinstance(node, list) else node
                assert part.isdigit() or part in node, f'{config}: {key}'
                node = node if part.isdigit() else node[part]


@each_page
def test_commands_parse(page, monkeypatch):
    makefile = (ROOT / 'Makefile').read_text()
    for words in commands(page):
        command, *rest = words
        if command == 'make':
            for word in rest:
                name = word.split('=')[0]
                known = rf'^{name} \?=' if '=' in word else rf'^{name}:'
                assert re.search(known, makefile, re.M), words
        elif command in ('python', 'bash') and rest[0].startswith('tools/'):
            tool, *rest = rest
            assert (ROOT / tool).is_file(), words
            tool = Path(tool).stem
            if command == 'bash':  # dist_train CONFIG PROCESSES …
                assert rest[1].isdigit(), words
                tool, rest = tool.split('_')[-1], [rest[0], *rest[2:]]
            check_options(parse(tool, rest, monkeypatch))
        else:
            assert command in SHELL, f'unchecked command: {words}'


@each_page
def test_no_command_is_overlooked(page):
    """All that reads like a command is where tests/commands looks for them."""
    named = re.findall(r'\b(?:python|bash) tools/\S+', page.read_text())
    assert len(named) == sum(
        words[0] in ('python', 'bash') for words in commands(page)
    )
    fences = re.findall(r'^```(\S+)$', page.read_text(), re.M)
    assert set(fences) <= {'bash', 'python', 'json', 'text', '{toctree}'}


@each_page
def test_results_from_elsewhere_are_read(page, tmp_path):
    """JSON in a page is what `tools/visualize.py curve FILE` takes."""
    for block in blocks(page, 'json'):
        (tmp_path / 'results.json').write_text(block)
        assert read_results(tmp_path / 'results.json')


@each_page
def test_mentioned_options_exist(page, monkeypatch, capsys):
    """`tools/benchmark.py --part backbone`, and so on, without python."""
    for span in code_spans(page):
        tool, *words = span.split()
        flags = [word for word in words if word.startswith('--')]
        if not re.match(r'tools/\w+\.py$', tool) or not flags:
            continue
        monkeypatch.setattr(sys, 'argv', [tool, '--help'])
        with pytest.raises(SystemExit):
            load_tool(Path(tool).stem).parse_args()
        known = re.findall(r'--[\w-]+', capsys.readouterr().out)
        assert set(flags) <= set(known), span


@each_page
def test_extras_and_requirements_exist(page):
    setup = (ROOT / 'setup.py').read_text()
    text = page.read_text()
    for extra in re.findall(r'pip install [\'"]?\S*\[(\w+)\]', text):
        assert f"'{extra}':" in setup, extra
    for name in re.findall(r'requirements/[\w.]+\.txt', text):
        assert (ROOT / name).is_file(), name


def typed(node):
    """All dicts with a type of ours in nested dicts and lists."""
    if isinstance(node, dict):
        if str(node.get('type')).startswith('mmvitcompress.'):
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from typed(child)


@each_page
def test_examples_compile_and_name_what_exists(page):
    for block in blocks(page, 'python'):
        code = compile(block, page.name, 'exec')
        if not re.match(r'\w+ = dict\(', block):
            continue
        settings = {}
        exec(code, settings)
        del settings['__builtins__']
        for node in typed(settings):
            arguments = {k: v for k, v in node.items() if k[0] != '_'}
            kinds = (MODELS, HOOKS, OPTIM_WRAPPER_CONSTRUCTORS)
            name = arguments.pop('type')
            found = [k.get(name) for k in kinds if k.get(name) is not None]
            assert found, f'{name} is not registered'
            inspect.signature(found[0]).bind_partial(**arguments)
        constructor = settings.get('optim_wrapper', {}).get('constructor')
        if constructor:
            assert OPTIM_WRAPPER_CONSTRUCTORS.get(constructor)


# -- model index and citation -------------------------------------------------


def model_index():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    return [
        yaml.safe_load((ROOT / path).read_text()) for path in index['Import']
    ]


def test_model_index_names_what_exists():
    files = model_index()
    models = [model for file in files for model in file['Models']]
    names = [model['Name'] for model in models]
    assert len(set(names)) == len(names)
    for file in files:
        collections = {entry['Name'] for entry in file['Collections']}
        assert {m['In Collection'] for m in file['Models']} <= collections
    for model in models:
        config = ROOT / model['Config']
        assert config.is_file(), model['Config']
        assert config.stem == model['Name']
        for result in model.get('Results', []):
            assert result['Task'] and result['Dataset']
            assert all(0 < x < 100 for x in result['Metrics'].values())
    metafiles = {path.name for path in (ROOT / 'configs/metafiles').iterdir()}
    index = (ROOT / 'model-index.yml').read_text()
    assert all(name in index for name in metafiles)


def test_costs_in_the_model_index_are_those_of_the_configs():
    counted = 0
    for model in itertools.chain(*(file['Models'] for file in model_index())):
        if 'FLOPs' not in model['Metadata']:
            continue
        cfg = Config.fromfile(ROOT / model['Config']).model
        said = {
            name: cfg.backbone[name]
            for name in ('img_size', 'token_merging', 'patch_slimming')
            if name in cfg.backbone
        }
        arch = get_arch(cfg.backbone.arch).replace(**said)
        assert model['Metadata']['FLOPs'] == arch.macs(None, cfg.num_classes)
        assert model['Metadata']['Parameters'] == arch.params(cfg.num_classes)
        counted += 1
    assert counted > 20


def test_results_in_the_model_index_are_those_of_the_documents():
    """A figure stands in one of the measured tables, to the digit."""
    text = (ROOT / 'docs/compression.md').read_text()
    text += (ROOT / 'README.md').read_text()
    for model in itertools.chain(*(file['Models'] for file in model_index())):
        for result in model.get('Results', []):
            for value in result['Metrics'].values():
                assert re.search(rf'\b{re.escape(str(value))}\b', text), model


def test_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['cff-version'] == '1.2.0'
    assert str(citation['version']) == __version__
    assert citation['title'] == 'mmvitcompress'
    methods = (ROOT / 'docs/methods.md').read_text()
    assert all(paper['url'] in methods for paper in citation['references'])


def test_patterns_are_expanded():
    assert expanded('a_{b,c}_{d,e}.py') == [
        *('a_b_d.py', 'a_b_e.py'),
        *('a_c_d.py', 'a_c_e.py'),
    ]
