"""From config files to figures: sizes, checkpoints, the tool."""

import json
import os
import runpy
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
from mmengine.config import Config

from mmvitcompress.analysis.candidates import build_candidate
from mmvitcompress.analysis.complexity import model_complexity
from mmvitcompress.analysis.configs import (
    as_shape,
    default_shape,
    load_config,
)
from mmvitcompress.errors import CheckpointError, ConfigError

TOOL = Path(__file__).parents[2] / 'tools/get_flops.py'

RESIZE = dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True)
CROP = dict(type='CenterCrop', crop_size=224)


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        (dict(crop_size=(512, 640), model={}), (512, 640)),
        (
            dict(model=dict(data_preprocessor=dict(size=(512, 512)))),
            (512, 512),
        ),
        # scale is (width, height) of the longest and the shortest side
        (dict(test_pipeline=[RESIZE], model={}), (800, 1333)),
        (
            dict(
                test_dataloader=dict(dataset=dict(pipeline=[RESIZE])),
                model=dict(backbone=dict(img_size=224)),
            ),
            (800, 1333),
        ),
        (dict(test_pipeline=[RESIZE, CROP], model={}), (224, 224)),
        (dict(model=dict(backbone=dict(img_size=384))), (384, 384)),
        (dict(model=dict(backbone=dict(img_size=(384, 640)))), (384, 640)),
        # a crop says more about training at a resolution than the test's
        # whole images do
        (
            dict(
                crop_size=(512, 512),
                test_pipeline=[dict(type='Resize', scale=(2048, 512))],
                model={},
            ),
            (512, 512),
        ),
    ],
)
def test_default_shape(settings, expected):
    assert default_shape(Config(settings)) == expected


def test_no_shape_to_be_found():
    with pytest.raises(ConfigError, match='--shape'):
        default_shape(Config(dict(model=dict(backbone={}))))


@pytest.mark.parametrize('size', [[], [1, 2, 3], [0, 4], [-8]])
def test_impossible_shapes(size):
    with pytest.raises(ConfigError, match='whole numbers from 1 to'):
        as_shape(size)


def test_missing_checkpoint_is_passed_over(make_config, capsys):
    config = make_config('mask_rcnn')
    expected = model_complexity(build_candidate(config), (64, 64))
    config.model.backbone.checkpoint = 'nowhere/cait.pth'
    figures = model_complexity(build_candidate(config), (64, 64))
    assert figures == expected
    assert "note: checkpoint 'nowhere/cait.pth'" in capsys.readouterr().err
    # the config itself is left alone
    assert config.model.backbone.checkpoint == 'nowhere/cait.pth'


def test_missing_checkpoint_without_arch_is_an_error(make_config):
    config = make_config('mask_rcnn')
    config.model.backbone = dict(
        type='mmvitcompress.CompressedViT', checkpoint='nowhere/cait.pth'
    )
    with pytest.raises(CheckpointError, match=r'nowhere/cait\.pth'):
        build_candidate(config)


def test_a_teacher_is_not_counted(make_config):
    config = make_config('image_classifier')
    expected = model_complexity(build_candidate(config), (64, 64))
    teacher = deepcopy(config.model)
    teacher.backbone.checkpoint = 'nowhere/deit.pth'
    config.model.distillation = dict(teacher=teacher)
    assert model_complexity(build_candidate(config), (64, 64)) == expected


def test_pretrained_weights_are_not_fetched(make_config):
    config = make_config('upernet')
    config.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint='https://example.invalid/vit.pth'
    )
    assert build_candidate(config).backbone.init_cfg is None


def test_configs_without_a_model(tmp_path):
    with pytest.raises(ConfigError, match='not found'):
        load_config(str(tmp_path / 'none.py'))
    (tmp_path / 'empty.py').write_text('a = 1\n')
    with pytest.raises(ConfigError, match="no 'model'"):
        load_config(str(tmp_path / 'empty.py'))


@pytest.fixture
def get_flops(monkeypatch, capsys):
    """Run the tool in this process: (exit status, stdout, stderr)."""

    def run(*args):
        argv = ['get_flops.py', *map(str, args)]
        monkeypatch.setattr(sys, 'argv', argv)
        status = 0
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


def test_tool_writes_what_the_library_counts(make_config, tmp_path, get_flops):
    config, out = tmp_path / 'config.py', tmp_path / 'new/figures.json'
    make_config('mask2former_seg').dump(config)
    status, stdout, stderr = get_flops(
        config,
        *('--shape', 48, 96),
        *('--convention', 'matmul'),
        *('--cfg-options', 'model.backbone.token_merging.layers=[1,2,4]'),
        *('--json', out),
    )
    assert status == 0, stderr
    expected = make_config('mask2former_seg')
    expected.model.backbone.token_merging.layers = [1, 2, 4]
    expected = model_complexity(build_candidate(expected), (48, 96), 'matmul')
    assert json.loads(out.read_text()) == expected
    assert expected['input_shape'] == [64, 96]
    for text in ('64 x 96', 'convention matmul', 'backbone', 'neck', 'head'):
        assert text in stdout
    assert f'{expected["total"]["macs"] / 1e9:.3f} G' in stdout


def test_tool_takes_the_shape_from_the_config(
    make_config, tmp_path, get_flops
):
    config, out = tmp_path / 'config.py', tmp_path / 'figures.json'
    make_config('mask_rcnn').dump(config)
    status, stdout, stderr = get_flops(config, '--json', out)
    assert status == 0, stderr
    figures = json.loads(out.read_text())
    assert figures['shape'] == [60, 90]
    assert figures['input_shape'] == [64, 96]
    assert '50 proposals, 10 masks' in stdout
    assert 'mmcv::roi_align_forward' in stdout


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['nowhere.py', '--shapes', '1'], '--shapes'),
        (['nowhere.py', '--convention', 'flops'], 'flops'),
        ([], 'config'),
    ],
)
def test_tool_refuses_a_wrong_command_line(args, message, get_flops):
    status, _, stderr = get_flops(*args)
    assert status == 2
    assert message in stderr


@pytest.mark.slow
def test_tool_on_its_own_and_failing():
    done = subprocess.run(
        [sys.executable, TOOL, 'nowhere.py'],
        capture_output=True,
        text=True,
        env=os.environ | {'PYTHONPATH': str(TOOL.parents[1])},
    )
    assert done.returncode == 1
    assert "'nowhere.py' not found" in done.stderr
    assert 'Traceback' not in done.stderr
