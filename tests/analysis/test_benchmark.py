"""Benchmarks: by a clock of our own, by hand, and the tool on real models."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from token_methods import FOR_VITS
from torch import nn

from mmvitcompress.analysis.benchmark import (
    benchmark,
    macs_ratios,
    speedup,
)
from mmvitcompress.analysis.candidates import build_candidate
from mmvitcompress.analysis.footprint import attention_kernels
from mmvitcompress.analysis.report import (
    contradictions,
    describe_benchmark,
    table,
)
from mmvitcompress.errors import ConfigError

ROOT = Path(__file__).parents[2]
TIMES = [f'{p}_ms' for p in ('backbone', 'neck', 'head', 'encoder', 'overall')]
IMAGES = torch.zeros(2, 3, 4, 4)


class Clock:
    """Stands still unless a model lets time pass; notes who is timed."""

    def __init__(self):
        self.now = 0.0
        self.log = []
        self.running = False

    def __call__(self):
        self.running = not self.running
        if self.running:
            self.log.append([])
        return self.now

    def work(self, name, seconds):
        self.now += seconds
        if self.running:
            self.log[-1].append(name)


class Step(nn.Module):
    def __init__(self, clock, name, seconds):
        super().__init__()
        self.clock, self.name, self.seconds = clock, name, seconds
        self.weight = nn.Parameter(torch.zeros(4, 4))

    def forward(self, x):
        self.clock.work(self.name, self.seconds)
        return x @ self.weight


class FPNStep(Step):
    """Named as what fuses levels."""


class Model(nn.Module):
    def __init__(self, clock, name, seconds):
        super().__init__()
        self.backbone = Step(clock, f'{name}.backbone', seconds)
        self.neck = nn.Sequential(
            Step(clock, f'{name}.pyramid', 0.25),
            FPNStep(clock, f'{name}.fpn', 0.125),
        )
        self.head = Step(clock, f'{name}.head', 0.5)

    def forward(self, x):
        return self.head(self.neck(self.backbone(x)))


def test_models_take_turns_run_by_run():
    clock = Clock()
    models = [Model(clock, name, 1.0) for name in 'ab']
    benchmark(models, IMAGES, (4, 4), repeats=3, warmup=1, clock=clock)
    timed = [' '.join(calls) for calls in clock.log]
    parts = {
        'backbone': '{0}.backbone',
        'neck': '{0}.pyramid {0}.fpn',
        'head': '{0}.head',
        'encoder': '{0}.backbone {0}.pyramid',
        'overall': '{0}.backbone {0}.pyramid {0}.fpn {0}.head',
    }
    there = [what.format(who) for what in parts.values() for who in 'ab']
    assert timed == [*there, *reversed(there)] * 2


def test_figures_by_the_clock():
    clock = Clock()
    slow, fast = Model(clock, 'slow', 2.0), Model(clock, 'fast', 0.75)
    rows = benchmark([slow, fast], IMAGES, (4, 4), 2, 1, clock=clock)
    assert [row['backbone_ms']['median'] for row in rows] == [2000, 750]
    assert [row['encoder_ms']['median'] for row in rows] == [2250, 1000]
    assert [row['neck_ms']['median'] for row in rows] == [375, 375]
    assert [row['head_ms']['median'] for row in rows] == [500, 500]
    assert rows[0]['overall_ms'] == dict(median=2875, min=2875, max=2875)
    assert rows[1]['images_per_s'] == pytest.approx(2 / 1.625)
    # 12 rows of 4 numbers times 4 x 4 weights, in each of four layers
    by_part = dict(backbone=192, neck=384, head=192, encoder=384)
    for row in rows:
        assert row['macs_by_part'] == by_part
        assert (row['macs'], row['params']) == (768, 64)
        assert row['attention_kernels'] == {}


@pytest.mark.parametrize(
    ('part', 'timed'),
    [('backbone', ['backbone']), ('encoder', ['backbone', 'encoder'])],
)
def test_no_more_is_timed_than_asked_for(part, timed):
    clock = Clock()
    models = [Model(clock, 'a', 1.0)]
    [found] = benchmark(models, IMAGES, (4, 4), 1, 0, clock=clock, part=part)
    assert len(clock.log) == len(timed)
    assert [key for key in TIMES if found[key]] == [f'{p}_ms' for p in timed]
    assert found['images_per_s'] is None and found['macs'] == 768
    assert speedup(found, found)['overall'] is None
    lines = table([found | dict(config='a.py')], None, part).splitlines()
    # config, MACs, parameters, one column for each part, memory
    assert [line.count('|') for line in lines] == [5 + len(timed)] * 3


def test_parts_that_are_not_there():
    model = nn.Linear(4, 4)
    with pytest.raises(ConfigError, match="no part 'backbone'"):
        benchmark([model], IMAGES, (4, 4), 1, 0, part='backbone')
    with pytest.raises(ConfigError, match='part must be one of backbone, enc'):
        benchmark([model], IMAGES, (4, 4), 1, 0, part='head')


def row(config, backbone, encoder, overall, macs, **more):
    times = dict(backbone=backbone, encoder=encoder, overall=overall)
    return {
        'config': config,
        **{
            f'{part}_ms': dict(median=time, min=time / 2, max=9 * time)
            for part, time in times.items()
        },
        'neck_ms': None,
        'head_ms': dict(median=1.0, min=1.0, max=1.0),
        'images_per_s': 12.345,
        'peak_memory_mb': None,
        'macs': sum(macs),
        'params': 2_500_000,
        'macs_by_part': dict(
            backbone=macs[0],
            encoder=macs[0] + macs[1],
            neck=macs[1],
            head=macs[2],
        ),
        'params_by_part': dict(encoder=500_000),
        'attention_kernels': {'flash': 12},
        **more,
    }


DENSE = row('a/dense.py', 12.0, 16.0, 20.0, (6_000_000_000, 0, 10**9))
SMALL = row('b/small.py', 6.0, 10.0, 16.0, (2_000_000_000, 0, 10**9))


def test_speedups_by_hand():
    assert speedup(SMALL, DENSE) == dict(
        backbone=2.0,
        encoder=1.6,
        overall=1.25,
        macs_ratio=pytest.approx(7 / 3),
    )
    assert macs_ratios(SMALL, DENSE) == dict(
        backbone=3.0, encoder=3.0, overall=pytest.approx(7 / 3)
    )
    assert set(speedup(DENSE, DENSE).values()) == {1.0}
    bare = {**SMALL, 'encoder_ms': None}
    assert speedup(bare, DENSE)['encoder'] is None


def test_table_by_hand():
    head, rule, *lines = table([SMALL], DENSE).splitlines()
    assert head.count('|') == rule.count('|') == 11
    assert lines == [
        '| dense | 7.000 | 2.50 | 12.0 | – | 1.0 | 16.0 | 20.0 | 12.35 | – |',
        '| small | 3.000 (2.33×) | 2.50 | 6.0 (2.00×) | – | 1.0 '
        '| 10.0 (1.60×) | 16.0 (1.25×) | 12.35 | – |',
    ]
    assert '×' not in table([SMALL, DENSE], None)
    head, _, *lines = table([SMALL], DENSE, 'encoder').splitlines()
    assert 'overall' not in head and 'head' not in head
    assert lines == [
        '| dense | 6.000 | 0.50 | 12.0 | 16.0 | – |',
        '| small | 2.000 (3.00×) | 0.50 | 6.0 (2.00×) | 10.0 (1.60×) | – |',
    ]


def test_a_table_that_contradicts_itself_says_so():
    noisy = row('c/noisy.py', 1540.0, 867.0, 900.0, (10**9, 0, 10**9))
    (sentence,) = contradictions([DENSE, noisy])
    assert 'backbone of noisy took 1540.0 ms, the encoder' in sentence
    assert '867.0 ms' in sentence and '--repeats' in sentence
    assert contradictions([DENSE, SMALL]) == []
    # without a neck both are one call, timed twice
    near = row('d/near.py', 10.1, 10.0, 10.0, (10**9, 0, 0))
    assert contradictions([near]) == []
    head = {**DENSE, 'head_ms': dict(median=25.0, min=25.0, max=25.0)}
    assert 'the head of dense took 25.0 ms' in contradictions([head])[0]
    partly = {**DENSE, 'overall_ms': None, 'encoder_ms': None}
    assert contradictions([partly]) == []


def attention(query, key, value):
    return nn.functional.scaled_dot_product_attention(query, key, value)


def test_kernels_of_attention(make_config):
    model = build_candidate(make_config('image_classifier'))
    images = torch.rand(1, 3, 64, 64)
    assert attention_kernels(model, images) == {'flash': 4}
    assert attention_kernels(model, images, torch.bfloat16) == {'flash': 4}
    backends = [torch.nn.attention.SDPBackend.MATH]
    with torch.nn.attention.sdpa_kernel(backends):
        assert attention_kernels(model, images) == {'math': 4}
    # MMSegmentation's own wants the weights, which no fused kernel tells
    peer = build_candidate(make_config('upernet'))
    assert attention_kernels(peer, images) == {'not fused': 4}


class Branching(Model):
    def forward(self, x):
        x = self.neck(self.backbone(x))
        torch._dynamo.graph_break()
        return self.head(x)


def test_compiling_is_paid_before_any_clock_runs(monkeypatch):
    class Ticking(Clock):
        def __call__(self):
            self.now += 1.0
            return super().__call__()

    clock = Ticking()
    compiled = []

    def backend(graph, inputs):
        assert not clock.running
        compiled.append(graph)
        return graph.forward

    # what a clock of Python's does would end up outside of the graphs
    monkeypatch.setattr(Step, 'forward', lambda self, x: x @ self.weight)
    models = [Model(clock, 'a', 1.0), Branching(clock, 'b', 1.0)]
    rows = benchmark(
        models, IMAGES, (4, 4), 2, 0, compiler=backend, clock=clock
    )
    # the five parts of the first; the second may share what is the same
    assert len(compiled) > 5
    assert rows[0]['graph_breaks'] == 0 < rows[1]['graph_breaks']
    assert all(row['compile_s'] > 0 for row in rows)


def test_what_cannot_be_compiled(make_config):
    def backend(graph, inputs):
        raise RuntimeError('no such instruction\nand more')

    model = build_candidate(make_config('image_classifier'))
    images = torch.rand(1, 3, 64, 64)
    with pytest.raises(ConfigError, match='no such instruction; run without'):
        benchmark([model], images, (64, 64), 1, 0, compiler=backend)


@pytest.fixture
def tool(monkeypatch, capsys):
    """Run tools/benchmark.py here: (exit status, stdout, stderr)."""

    def run(*args):
        words = ['benchmark.py', *map(str, args)]
        monkeypatch.setattr(sys, 'argv', words)
        status = 0
        try:
            runpy.run_path(str(ROOT / 'tools/benchmark.py'), None, '__main__')
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('image_classifier', ['--images', 'random', '--channels-last']),
        ('upernet', ['--amp', 'bf16']),
        ('mask_rcnn', ['--cfg-options', 'model.test_cfg.rpn.max_per_img=20']),
    ],
)
def test_tool_on_every_task(name, options, make_config, tmp_path, tool):
    config, out = tmp_path / f'{name}.py', tmp_path / 'new/figures.json'
    make_config(name).dump(config)
    status, stdout, stderr = tool(
        config,
        *('--baseline', config),
        *('--shape', 64, 96),
        *('--batch-size', 2),
        *('--repeats', 2),
        *('--warmup', 0),
        *('--device', 'cpu'),
        *('--json', out),
        *options,
    )
    assert status == 0, stderr
    figures = json.loads(out.read_text())
    assert figures['device'] == 'cpu'
    assert figures['dtype'] == (
        'bfloat16' if '--amp' in options else 'float32'
    )
    assert (figures['batch_size'], figures['shape']) == (2, [64, 96])
    [candidate], baseline = figures['candidates'], figures['baseline']
    assert candidate['config'] == str(config)
    for key in TIMES:
        if key == 'neck_ms' and name == 'image_classifier':
            assert candidate[key] is None
            continue
        low, middle, high = (
            candidate[key][k] for k in ('min', 'median', 'max')
        )
        assert 0 < low <= middle <= high
    overall = candidate['overall_ms']['median']
    assert candidate['images_per_s'] == pytest.approx(2000 / overall)
    assert candidate['peak_memory_mb'] > candidate['params'] * 4 / 2**20
    gains = figures['speedup']
    assert list(gains) == ['backbone', 'encoder', 'overall', 'macs_ratio']
    assert gains['macs_ratio'] == 1
    assert gains['overall'] == pytest.approx(
        baseline['overall_ms']['median'] / overall
    )
    assert stdout.count(f'| {name} |') == 2
    assert describe_benchmark(figures) in stdout


def test_tool_on_a_part(make_config, tmp_path, tool):
    config, out = tmp_path / 'config.py', tmp_path / 'figures.json'
    make_config('upernet').dump(config)
    status, stdout, stderr = tool(
        *(config, '--baseline', config, '--part', 'backbone'),
        *('--shape', 64, '--repeats', 1, '--warmup', 0, '--json', out),
    )
    assert status == 0, stderr
    figures = json.loads(out.read_text())
    assert figures['part'] == 'backbone'
    [candidate], gains = figures['candidates'], figures['speedup']
    assert candidate['backbone_ms'] and candidate['overall_ms'] is None
    assert gains['backbone'] > 0 and gains['overall'] is None
    assert describe_benchmark(figures) in stdout and 'overall' not in stdout


@pytest.mark.slow
def test_tool_on_several(make_config, tmp_path, tool):
    paths = [tmp_path / f'{name}.py' for name in ('dense', 'early', 'late')]
    for path, layers in zip(paths, [None, (2, 3), (3, 4)]):
        config = make_config('image_classifier')
        config.model.backbone.pop('token_merging')
        if layers:
            config.model.backbone.token_merging = dict(layers=layers)
        config.dump(path)
    out = tmp_path / 'figures.json'
    quickly = ('--repeats', 1, '--warmup', 0, '--json', out, '--shape', 64)
    status, _, stderr = tool(*paths[1:], '--baseline', paths[0], *quickly)
    assert status == 0, stderr
    figures = json.loads(out.read_text())
    early, late = figures['candidates']
    assert early['macs'] < late['macs'] < figures['baseline']['macs']
    assert [gain['macs_ratio'] for gain in figures['speedup']] == [
        figures['baseline']['macs'] / row['macs'] for row in (early, late)
    ]
    status, _, stderr = tool(*paths, *quickly)
    assert status == 0, stderr
    figures = json.loads(out.read_text())
    assert figures['speedup'] is figures['baseline'] is None
    assert len(figures['candidates']) == 3


@pytest.mark.parametrize('methods', [None, ('token_merging', 'token_rates')])
def test_tool_plans_methods_for_one_target(
    methods, make_config, tmp_path, tool
):
    """All of them come as near as their steps allow, and none keeps what the
    config has."""
    path, out = tmp_path / 'config.py', tmp_path / 'figures.json'
    config = make_config('image_classifier')
    config.model.backbone.arch.depth = 12
    config.dump(path)
    status, stdout, stderr = tool(
        *(path, '--target', 0.3, '--part', 'backbone', '--shape', 256),
        *('--baseline', path, '--repeats', 1, '--warmup', 0, '--json', out),
        *(('--methods', *methods) if methods else ()),
        '--cfg-options',
        'model.backbone.token_merging=None',
    )
    assert status == 0, stderr
    figures = json.loads(out.read_text())
    rows, names = figures['candidates'], methods or FOR_VITS
    assert [row['backbone'] for row in rows] == [*names]
    dense = figures['baseline']['macs']
    for row in rows:
        assert row['macs'] / dense == pytest.approx(0.7, abs=0.02)
        assert f'config-{row["backbone"]}' in stdout


@pytest.mark.slow
def test_methods_that_do_not_fit_are_left_out(tool):
    """Of all, that is; those that are named have to fit."""
    path = ROOT / 'configs/semfpn_dense_deit_s_ade20k.py'
    words = [path, '--target', 0.3, '--part', 'backbone', '--shape', 256]
    words += ['--repeats', 1, '--warmup', 0]
    options = ('arch.class_token=False', 'arch.pos_embed=patch')
    options = [f'model.backbone.{option}' for option in options]
    status, stdout, stderr = tool(*words, '--cfg-options', *options)
    assert status == 0, stderr
    assert 'patch_slimming is left out: ' in stdout
    assert 'token_matching' in stdout
    words += ['--methods', 'patch_slimming', '--cfg-options', *options]
    status, _, stderr = tool(*words)
    assert status == 1 and 'class_token' in stderr


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--methods', 'token_rates'], 'needs --target'),
        (['--target', '0.3', '--backbone', 'x'], 'leave --backbone out'),
        (
            ['--target', '0.99', '--methods', 'token_merging'],
            'cannot be reached',
        ),
        (['--checkpoint', 'nowhere.pth'], "'nowhere.pth' not found"),
        (
            ['--cfg-options', 'model.backbone.checkpoint=nowhere.pth'],
            "'nowhere.pth' not found; correct model.backbone.checkpoint",
        ),
        (['--cfg-options', 'load_from=nowhere.pth'], "'nowhere.pth' not"),
        (['--checkpoint', 'a.pth', 'b.pth'], 'one file for each of 1'),
        (['--baseline-checkpoint', 'a.pth'], 'needs --baseline'),
        (['--baseline', 'nowhere.py'], "'nowhere.py' not found"),
        (['--device', 'cuda:77'], "device 'cuda:77' cannot be used"),
        (['--device', 'toaster'], "device 'toaster' cannot be used"),
        (['--batch-size', '0'], 'but got 0'),
        (['--repeats', '0'], 'repeats must be at least 1'),
    ],
)
def test_tool_refuses(args, message, make_config, tmp_path, tool):
    config = tmp_path / 'config.py'
    make_config('image_classifier').dump(config)
    status, stdout, stderr = tool(config, '--shape', '64', *args)
    assert status == 1
    assert message in stderr
    assert stdout == ''


@pytest.mark.slow
def test_the_peer_differs_in_its_backbone_alone(tmp_path, tool):
    """And that in what its attention runs on, not in MACs or parameters."""
    out = tmp_path / 'figures.json'
    status, _, stderr = tool(
        ROOT / 'configs/upernet_mmsegvit_deit_s_ade20k.py',
        *('--baseline', ROOT / 'configs/upernet_stock_deit_s_ade20k.py'),
        *('--shape', 32, '--repeats', 1, '--warmup', 0, '--json', out),
        '--cfg-options',
        'model.decode_head.channels=8',
        'model.auxiliary_head.channels=8',
    )
    assert status == 0, stderr
    figures = json.loads(out.read_text())
    [peer], ours = figures['candidates'], figures['baseline']
    for key in ('macs', 'macs_by_part', 'params'):
        assert peer[key] == ours[key]
    assert peer['attention_kernels'] == {'not fused': 12}
    assert ours['attention_kernels'] == {'flash': 12}
