"""``--backbone FILE``: what it replaces, what it keeps, what it refuses."""

import argparse
import json
import re
import runpy
import sys
from contextlib import nullcontext

import pytest
import torch
from documents import ROOT

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.engine import launch
from mmvitcompress.engine.backbone_flag import find_backbone, maps_of
from mmvitcompress.engine.config import read_config
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.vit import ViT
from mmvitcompress.utils import files

pytestmark = pytest.mark.slow

UPERNET = 'upernet_dense_deit_s_ade20k'
SMALL = 'upernet_dense_vit_micro_digits'
MERGED = """
backbone = dict(
    type='mmvitcompress.ATMEDeiT',
    arch='vit_micro',
    token_merging=dict(layers=(3, 6)),
)
"""
TOOLS = {
    'train': [],
    'test': ['x.pth'],
    'benchmark': [],
    'get_flops': [],
    'export': ['x', '--target', 'onnx'],
    'export_onnx': ['x.onnx'],
    'export_pruned': ['x.pth', 'y.pth'],
    'predict': ['x.pth', 'x.jpg', '--out', 'x'],
}


def path(name):
    return str(ROOT / f'configs/{name}.py')


def read(name, backbone=None, **options):
    return read_config(path(name), options, backbone and str(backbone))


@pytest.fixture
def write(tmp_path):
    """Writes a backbone's file; returns its path."""

    def file(text):
        (tmp_path / 'mine.py').write_text(text)
        return tmp_path / 'mine.py'

    return file


@pytest.fixture
def tool(monkeypatch, capsys):
    """Runs a tool in this process; returns what it prints."""

    def run(name, *words):
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, words)])
        runpy.run_path(str(ROOT / f'tools/{name}.py'), run_name='__main__')
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    'name',
    [
        file.stem
        for file in (ROOT / 'configs').glob('*.py')
        if '_base_.backbone' in file.read_text()
    ],
)
def test_it_does_what_a_file_of_its_own_does(name):
    head, method, size, data = re.fullmatch(
        r'(\w+)_([a-z]+)_([a-z]+_[tsb])_([a-z0-9]+)', name
    ).groups()
    written, backbone = read(name).to_dict(), f'{method}_{size}'
    kind = written.pop('backbone')['type']
    assert written['model']['backbone']['type'] == kind
    control = f'{head}_dense_{size}_{data}'
    assert read(control, backbone).to_dict() == written
    assert read(control, find_backbone(backbone)).to_dict() == written


def test_settings_apply_afterwards():
    changed = {'model.backbone.checkpoint': 'x.pth', 'load_from': 'y.pth'}
    cfg = read(UPERNET, 'atme_deit_s', **changed)
    assert cfg.model.backbone.type == 'mmvitcompress.ATMEDeiT'
    assert cfg.model.backbone.checkpoint == 'x.pth'
    assert cfg.load_from == 'y.pth'


def test_use_stays_and_the_backbone_goes(write):
    """Merges, widths and weights go with it; how it is used does not."""
    cfg = read('upernet_atme_deit_s_ade20k', 'lifeslim_deit_s')
    assert 'token_merging' not in cfg.model.backbone
    assert cfg.model.backbone.drop_path_rate == 0.1
    file = write("model = dict(backbone=dict(type='X', drop_path_rate=0.3))")
    assert read(UPERNET, file).model.backbone == dict(
        type='X',
        img_size=(512, 512),
        out_indices=(2, 5, 8, 11),
        restore=False,
        drop_path_rate=0.3,
    )
    file = write("backbone = dict(_delete_=True, type='X')")
    assert read(UPERNET, file).model.backbone == dict(type='X')
    # a backbone of another library, in a config of its own
    cfg = read('upernet_mmsegvit_deit_s_ade20k', 'cait_deit_s')
    assert cfg.model.backbone.arch == 'cait_deit_small'
    assert 'embed_dims' not in cfg.model.backbone


def test_what_goes_with_it_is_merged(write):
    file = write("""
_base_ = './small.py'
model = dict(
    backbone=dict(drop_path_rate=0.2),
    neck=dict(embed_dim=768),
    decode_head=dict(in_channels=[768] * 4),
    auxiliary_head=dict(in_channels=768),
)
custom_hooks = [dict(type='EMAHook')]
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.7))
""")
    small = file.with_name('small.py')
    small.write_text("backbone = dict(type='CompressedViT', arch='deit_b')")
    cfg = read(UPERNET, file)
    assert cfg.model.backbone.arch == 'deit_b'
    assert cfg.model.backbone.drop_path_rate == 0.2
    assert cfg.model.neck.rescales == [4, 2, 1, 0.5]
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook']
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay == 0.7
    assert cfg.optim_wrapper.optimizer.lr == 6e-5


@pytest.mark.parametrize(
    ('config', 'backbone', 'parts'),
    [
        (UPERNET, 'atme_deit_b', ['768', 'model.neck.embed_dim is 384']),
        (UPERNET, 'cait_swin_t', ['[96, 192, 384, 768]', 'embed_dim is 384']),
        (
            'upernet_dense_swin_t_ade20k',
            'cdcp_deit_s',
            ['384', 'model.decode_head.in_channels is [96, 192, 384, 768]'],
        ),
        (
            'cascade_mask_rcnn_dense_swin_t_coco',
            'atme_deit_s',
            ['384', 'model.neck.in_channels is [96, 192, 384, 768]'],
        ),
        (
            'mask_rcnn_dense_vit_micro_nuclei',
            'atme_deit_t',
            ['192', 'model.neck.embed_dim is 96'],
        ),
    ],
)
def test_what_does_not_fit_is_refused(config, backbone, parts):
    with pytest.raises(ConfigError) as caught:
        read(config, backbone)
    for part in (repr(backbone), f'{config}.py', *parts):
        assert part in str(caught.value)


def test_other_strides_are_refused(write):
    file = write("""
backbone = dict(
    type='mmvitcompress.CompressedViT',
    arch=dict(base='deit_small', patch_size=8),
)
""")
    with pytest.raises(ConfigError, match=r'strides \[8, .*strides \[16, '):
        read(UPERNET, file)


@pytest.mark.parametrize('carries_arch', [True, False])
def test_a_checkpoint_tells_the_width_too(write, carries_arch, tmp_path):
    path = tmp_path / 'x.pth'
    for width, refused in ((128, True), (96, False)):
        arch = ViTArch(width, 8, width // 32, patch_size=8, img_size=32)
        state_dict = ViT(arch).state_dict()
        if carries_arch:
            write_checkpoint(path, state_dict, arch)
        else:
            torch.save(state_dict, path)
        text = f'dict(type="mmvitcompress.CompressedViT", checkpoint="{path}")'
        file = write(f'backbone = {text}')
        raising = pytest.raises(ConfigError, match=r'128.*embed_dim is 96')
        with raising if refused else nullcontext():
            read(SMALL, file)


def test_settings_may_make_it_fit():
    wide = {
        'model.neck.embed_dim': 768,
        'model.decode_head.in_channels': [768] * 4,
        'model.auxiliary_head.in_channels': 768,
    }
    cfg = read(UPERNET, 'cait_deit_b', **wide)
    assert maps_of(cfg.model.backbone).channels == [768] * 4


@pytest.mark.parametrize(
    ('config', 'text', 'message'),
    [
        (UPERNET, 'model = dict(neck=None)', 'sets neither backbone nor'),
        (UPERNET, 'a = 1 / 0', 'ZeroDivisionError'),
        ('_base_/datasets/camvid', "backbone = dict(type='X')", 'no model.b'),
        (
            UPERNET,
            "backbone = dict(type='X')\ntrain_cfg = dict(type=dict(a=1))",
            'cannot be merged',
        ),
    ],
)
def test_files_that_cannot_serve_are_refused(write, config, text, message):
    with pytest.raises(ConfigError, match=message):
        read(config, write(text))


def test_unknown_names_are_refused_with_those_that_are_known(
    tmp_path, monkeypatch
):
    with pytest.raises(ConfigError) as caught:
        read(UPERNET, 'atme_diet_s')
    for file in (ROOT / 'configs/_base_/backbones').glob('*.py'):
        assert file.stem in str(caught.value)
    # an installed wheel has no configs beside it
    monkeypatch.setattr(files, 'PACKAGE', tmp_path)
    folder = tmp_path / '.mim/configs/_base_/backbones'
    folder.mkdir(parents=True)
    (folder / 'a_b.py').touch()
    assert find_backbone('a_b') == folder / 'a_b.py'
    with pytest.raises(ConfigError, match=r"'x' is neither .* one of a_b$"):
        find_backbone('x')


def test_runs_do_not_overwrite_one_another():
    parser = argparse.ArgumentParser()
    launch.add_run_arguments(parser)
    folders = [
        launch.start(parser.parse_args([path(UPERNET), *words])).work_dir
        for words in (
            [],
            ['--backbone', 'atme_deit_s'],
            ['--backbone', str(find_backbone('cait_deit_s'))],
            ['--backbone', 'atme_deit_s', '--work-dir', 'here'],
        )
    ]
    assert folders == [
        f'work_dirs/{UPERNET}',
        f'work_dirs/{UPERNET}-atme_deit_s',
        f'work_dirs/{UPERNET}-cait_deit_s',
        'here',
    ]


@pytest.mark.parametrize('name', TOOLS)
def test_every_tool_that_reads_a_config_takes_it(name, monkeypatch, capsys):
    words = [path(UPERNET), *TOOLS[name], '--backbone', 'atme_diet_s']
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', *words])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / f'tools/{name}.py'), run_name='__main__')
    assert stop.value.code == 1
    assert "--backbone 'atme_diet_s' is neither" in capsys.readouterr().err


def test_models_are_measured_with_it(tool, write, tmp_path):
    """Counted as in a file of its own, timed beside others."""
    mine, out = write(MERGED), tmp_path / 'figures.json'
    counted = []
    for words in (
        [path(SMALL), '--backbone', mine],
        [path('upernet_atme_vit_micro_digits')],
    ):
        tool('get_flops', *words, '--json', out)
        counted.append(json.loads(out.read_text()))
    assert counted[0] == counted[1]
    other = tmp_path / 'fewer.py'
    other.write_text(MERGED.replace('(3, 6)', '(3,)'))
    table = tool(
        *('benchmark', path(SMALL), '--baseline', path(SMALL)),
        *('--backbone', mine, other, '--part', 'backbone'),
        *('--repeats', 1, '--warmup', 0, '--json', out),
    )
    figures = json.loads(out.read_text())
    rows = [*figures['candidates'], figures['baseline']]
    assert [row['backbone'] for row in rows] == [str(mine), str(other), None]
    costs = [row['macs'] for row in rows]
    assert costs == sorted({*costs})
    for name in (f'{SMALL}-mine', f'{SMALL}-fewer', SMALL):
        assert f'| {name} |' in table


def test_pictures_are_drawn_with_it(tool, write, tmp_path):
    tool(
        *('visualize', 'merges', path(SMALL), '--backbone', write(MERGED)),
        *('--images', ROOT / 'docs/images/merges.png', '--shape', 64),
        *('--out', tmp_path / 'merges.png'),
    )
    assert (tmp_path / 'merges.png').is_file()
