"""The planner as a function and as a tool."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.channels import SelectionRules
from mmvitcompress.errors import ConfigError
from mmvitcompress.planning import plan_arch
from mmvitcompress.tokens import METHODS

ROOT = Path(__file__).parents[2]


def check(found, name, img_size, num_classes=0):
    """A plan's figures are those of the arch that it describes."""
    dense = get_arch(name)
    merged = dense.with_reductions(found.spec)
    whole = dense.macs(img_size, num_classes)
    by_tokens = 1 - merged.macs(img_size, num_classes) / whole
    assert found.dense_macs == whole
    assert found.token_reduction == pytest.approx(by_tokens, abs=1e-12)
    both = found.token_reduction + found.channel_reduction
    assert found.reduction == pytest.approx(both, abs=1e-12)
    assert found.macs == pytest.approx((1 - both) * whole, abs=1)


@pytest.mark.parametrize(
    'name, target, layers, gigamacs',
    [
        ('deit_small', 0.41, (5, 9), 2.71),
        ('deit_small', 0.43, (5, 8), 2.62),
        ('deit_tiny', 0.50, (4, 8, 10), 0.63),
    ],
)
def test_tokens_alone(name, target, layers, gigamacs):
    found = plan_arch(get_arch(name), target, 224, num_classes=1000)
    check(found, name, 224, 1000)
    assert found.layers == layers
    pair = ('horizontal', 'vertical')
    assert found.spec.directions == (*pair, *pair)[: len(layers)]
    assert found.channel_reduction == 0
    assert found.macs / 1e9 == pytest.approx(gigamacs, abs=0.005)


@pytest.mark.parametrize('num_classes', [0, 1000])
@pytest.mark.parametrize(
    'name, printed, layers, saved',
    [
        # CAIT IV-C1, IV-D; saved by our count
        ('deit_small', 0.411, (5, 9), 0.4113),
        ('deit_small', 0.433, (5, 8), 0.4314),
        ('deit_tiny', 0.502, (4, 8, 10), 0.5023),
        ('swin_tiny', 0.201, (5, 6), 0.2027),
        # (7, 13) of the paper save 35.7 %, by windows that shrink
        ('swin_small', 0.337, (8, 13), 0.3370),
        ('swin_small', 0.357, (7, 13), 0.3572),
    ],
)
def test_printed_reductions_are_met(name, printed, layers, saved, num_classes):
    """As nearly as 0.25 points, from either side, classifier or not."""
    found = plan_arch(get_arch(name), printed, 224, num_classes=num_classes)
    assert found.layers == layers
    assert found.reduction == pytest.approx(printed, abs=0.0025)
    assert found.reduction == pytest.approx(saved, abs=0.0002)


@pytest.mark.parametrize('target', [0.8413, 0.85, 0.88])
def test_far_targets_are_planned(target):
    """Merges before blocks 1 to 8 save 88 %."""
    found = plan_arch(get_arch('deit_small'), target, 224)
    assert target - 0.0025 <= found.reduction < target + 0.01


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('channels', [0.0, 0.4])
def test_every_method_meets_a_target(method, channels):
    vit = 'vit' in METHODS[method].families
    name = 'deit_small' if vit else 'swin_small'
    arch = get_arch(name)
    found = plan_arch(arch, 0.4, 384, channels, method=method)
    check(found, name, 384)
    # whole blocks of a Swin are all that can be chosen
    near = 0.013 if vit or channels else 0.05
    assert found.reduction == pytest.approx(0.4, abs=near)
    config = found.config()
    assert [*config] == [method]
    assert arch.replace(**config).reductions == (found.spec,)
    with pytest.raises(ConfigError, match=r'cannot be reached .* lower the'):
        plan_arch(arch, 0.97, 384, method=method)


def test_resolution_of_deployment_decides():
    """At 512 px attention weighs more, and merges may come later."""
    at_224 = plan_arch(get_arch('deit_small'), 0.43, 224)
    at_512 = plan_arch(get_arch('deit_small'), 0.43, 512)
    check(at_512, 'deit_small', 512)
    assert sum(at_512.layers) > sum(at_224.layers)


def test_longer_side_is_merged_first():
    for size, first in (((800, 1344), 'horizontal'), ((96, 64), 'vertical')):
        found = plan_arch(get_arch('vit_micro'), 0.3, size)
        check(found, 'vit_micro', size)
        assert found.spec.directions[0] == first


@pytest.mark.parametrize(
    'name, target',
    [
        ('deit_tiny', 1 - 0.6 / 1.258),
        ('deit_small', 1 - 2.1 / 4.608),
        ('deit_base', 1 - 7.4 / 17.583),
    ],
)
def test_joint_plan_is_caits(name, target):
    """Merges evenly at 5 and 9; the channels make up the difference."""
    found = plan_arch(
        get_arch(name), target, 224, channels=0.25, num_classes=1000
    )
    check(found, name, 224, 1000)
    assert found.layers == (5, 9)
    assert found.reduction == pytest.approx(target, abs=1e-12)
    assert 0.05 < found.channel_reduction < 0.2


def test_channels_alone():
    found = plan_arch(get_arch('deit_small'), 0.381, 224, channels=1.0)
    check(found, 'deit_small', 224)
    assert found.layers == () and found.config() == {}
    assert found.channel_reduction == pytest.approx(0.381)


def test_a_compressed_arch_is_planned_from_its_dense_form():
    merged = get_arch('deit_small').replace(token_merging=dict(layers=(2,)))
    dense = plan_arch(get_arch('deit_small'), 0.43, 224)
    assert plan_arch(merged, 0.43, 224) == dense


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(target=0.95), r'8 merges, .* save 88\.\d+%; lower the target'),
        (dict(target=0.97, channels=0.5), r'at its floor it is 9\d\.\d+%'),
        (dict(target=1.5), 'between 0 and 1 .* got 1.5'),
        (dict(target=-1, channels=0.5), 'between 0 and 1 .* got -1'),
        (dict(target=0.4, channels=2), 'in 0..1, but got 2'),
        (dict(target=0.4, img_size=(8, 224)), 'at least one patch'),
    ],
)
def test_what_cannot_be_reached_is_said(arguments, message):
    with pytest.raises(ConfigError, match=message):
        plan_arch(
            **dict(arch=get_arch('deit_small'), img_size=224) | arguments
        )


def test_floors_limit_what_channels_can_do():
    half = SelectionRules(min_head_dim=32, min_mlp_dim=768)
    arch = get_arch('deit_small')
    plan_arch(arch, 0.4, 224, channels=1.0, rules=half)
    with pytest.raises(ConfigError, match='out of reach'):
        plan_arch(arch, 0.6, 224, channels=1.0, rules=half)


# -- the tool -----------------------------------------------------------------


@pytest.fixture
def tool(monkeypatch):
    """Run the tool in this process; returns its exit status."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['plan.py', *arguments])
        try:
            runpy.run_path(str(ROOT / 'tools/plan.py'), run_name='__main__')
        except SystemExit as end:
            return end.code
        return 0

    return run


def test_tool_prints_and_writes_the_plan(tmp_path):
    file = tmp_path / 'plan.json'
    arguments = (
        *('--arch', 'deit_small', '--target', '0.54', '--shape', '512', '640'),
        *('--channels', '0.2', '--json', str(file)),
    )
    result = subprocess.run(
        [sys.executable, 'tools/plan.py', *arguments],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    content = json.loads(file.read_text())
    expected = plan_arch(get_arch('deit_small'), 0.54, (512, 640), 0.2)
    assert expected.to_dict().items() <= content.items()
    required = 'token_merging reduction macs channel_reduction'
    assert set(required.split()) <= content.keys()
    assert 'deit_small at 512 x 640 pixels' in result.stdout
    assert '54.00% less' in result.stdout
    # the line for a config is one
    [setting] = re.findall(r'token_merging=(dict\(.*\))', result.stdout)
    merged = get_arch('deit_small').replace(token_merging=eval(setting))
    assert merged.token_merging.layers == expected.layers


@pytest.mark.parametrize(
    ('arch', 'blocks'),
    [
        ('swin_small', 'blocks of stage 3, the only one that merges'),
        ('deit_small', 'blocks are counted from 1'),
    ],
)
def test_tool_says_whose_blocks_merge(tool, capsys, arch, blocks):
    assert tool('--arch', arch, '--target', '.2', '--shape', '224') == 0
    assert f'({blocks}' in capsys.readouterr().out


def test_tool_says_what_is_reachable(tool, capsys):
    arguments = ('--arch', 'deit_tiny', '--target', '.95', '--shape', '224')
    assert tool(*arguments) == 1
    assert re.fullmatch(
        r'plan\.py: error: a reduction of 95\.00% cannot .*\n',
        capsys.readouterr().err,
    )


@pytest.mark.parametrize(
    'extra', [('--shape', '1', '2', '3'), ('--shape', '224', '--tokens', '1')]
)
def test_tool_refuses_wrong_command_lines(tool, capsys, extra):
    assert tool('--arch', 'deit_tiny', '--target', '.4', *extra) == 2
    assert 'usage: plan.py' in capsys.readouterr().err
