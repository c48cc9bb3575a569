"""docs/papers.md: runs that exist, figures that hold, prints that agree."""

import argparse
import re
from decimal import Decimal

import pytest
from documents import ROOT
from mmengine.config import DictAction
from recipes import random_scores

from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.channels import MacBudget, SelectionRules, select
from mmvitcompress.channels.folding import pruned_arch
from mmvitcompress.engine.config import read_config
from mmvitcompress.registry import HOOKS
from mmvitcompress.tokens import METHODS

PAGE = ROOT / 'docs/papers.md'


def rows():
    """Section, name, run and figures of each row that has a run."""
    for section in PAGE.read_text().split('\n## ')[1:]:
        for table in re.findall(r'(?:^\|.*\n)+', section, re.M):
            head, _, *lines = (
                [cell.strip() for cell in line.strip('|').split('|')]
                for line in table.strip().splitlines()
            )
            for name, run, *figures in lines if head[1:2] == ['run'] else []:
                shown = [*zip(head[2:], figures)]
                yield section.split('\n')[0], name, run, shown


ROWS = list(rows())


def read(section, run):
    """The config that a row names, with what it changes."""
    name, *changes = re.findall(r'`([^`]+)`', run)
    folder = 'configs' if 'dense prediction' in section else 'configs/imagenet'
    backbone, options = None, []
    for change in changes:
        flag, _, value = change.partition(' ')
        if flag == '--backbone':
            backbone = value
        else:
            options.append(change)
    cfg = read_config(str(ROOT / folder / name), None, backbone)
    parser = argparse.ArgumentParser()
    parser.add_argument('--set', nargs='*', action=DictAction, default={})
    given = parser.parse_args(['--set', *options] if options else []).set
    cfg.merge_from_dict(given)
    return cfg, given


def arch_of(cfg):
    """What is run in the end; channels by random scores."""
    backbone = cfg.model.backbone
    own = {key: backbone[key] for key in METHODS if backbone.get(key)}
    arch = get_arch(backbone.arch).replace(**own)
    for hook in cfg.get('custom_hooks', []):
        if hook.type.endswith(('CDCPHook', 'PruningHook')):
            budget = MacBudget.of(arch, num_classes=1000)
            rules = SelectionRules(**hook.rules)
            scores = random_scores(arch, 0)
            kept = select(scores, budget, hook.target, rules).kept
            arch = pruned_arch(arch, kept)
    return arch


def as_shown(value, text):
    """A figure with the decimals of a text."""
    decimals = -Decimal(text).as_tuple().exponent
    return f'{value:.{decimals}f}'


@pytest.mark.parametrize(
    ('section', 'name', 'run', 'figures'), ROWS, ids=[row[1] for row in ROWS]
)
def test_row(section, name, run, figures):
    if run.startswith('not here'):
        return
    cfg, given = read(section, run)
    for key, value in given.items():  # what is changed is there, and taken
        *path, last = key.split('.')
        node = cfg
        for part in path:
            node = node[int(part)] if isinstance(node, list) else node[part]
        assert node[last] == value
    for hook in cfg.get('custom_hooks', []):
        HOOKS.build(hook)
    if 'dense prediction' not in section and figures[0][1] != '–':
        whole = get_arch(cfg.model.backbone.arch).macs(num_classes=1000)
        check_figures(arch_of(cfg), whole, figures)


def check_figures(arch, whole, figures):
    """Ours are as shown; what is printed equals them, or bears a †."""
    macs = arch.macs(num_classes=1000)
    own = {
        'MACs': macs / 1e9,
        '%': 100 * (1 - macs / whole),
        'params': arch.params(1000) / 1e6,
    }
    ours = None
    for column, text in figures:
        number, *rest = text.split()
        if number == '–':
            continue
        if column != 'printed':
            ours = own['%' if '%' in rest else column]
        agrees = number == as_shown(ours, number)
        assert agrees != ('†' in rest), f'{column} {text} beside {ours}'


def test_the_page_names_every_run_that_the_paper_has():
    """CAIT's and Life Regression's, as far as there are configs."""
    named = {
        re.search(r'`(\w+)\.py`', run)[1]
        for _, _, run, _ in ROWS
        if not run.startswith('not here')
    }
    folder = ROOT / 'configs/imagenet'
    papers = {
        f'{method}_deit_{size}_in1k'
        for method in ('atme', 'cdcp', 'cait')
        for size in 'tsb'
    } - {'atme_deit_b_in1k', 'cdcp_deit_b_in1k'}  # the targets are ours
    assert all((folder / f'{name}.py').exists() for name in papers)
    assert papers <= named
