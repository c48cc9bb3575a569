"""A segmentation run small enough to be repeated: data, config, tools."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import forget_runs
from warm import warm_python

from mmvitcompress.utils import cli

ROOT = Path(__file__).parents[2]
SIZE = 32  # pixels
NUM_CLASSES = 3

CONFIG = """
default_scope = 'mmseg'
size = ({size}, {size})
norm = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[64.0] * 3,
        size=size, bgr_to_rgb=True, seg_pad_val=255,
    ),
    backbone=dict(
        type='ResNet', depth=18, base_channels=8, stem_channels=8,
        norm_cfg=norm,
    ),
    decode_head=dict(
        type='FCNHead', in_channels=64, in_index=3, channels=8, num_convs=1,
        concat_input=False, dropout_ratio=0.0, num_classes={num_classes},
        norm_cfg=norm, loss_decode=dict(type='CrossEntropyLoss'),
    ),
    test_cfg=dict(mode='whole'),
)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
pack = [dict(type='PackSegInputs')]
augment = []
metainfo = dict(
    classes=('a', 'b', 'c'), palette=[[0, 0, 0], [99, 0, 0], [0, 99, 0]]
)
def dataset(split, pipeline):
    return dict(
        type='BaseSegDataset', data_root={data!r}, metainfo=metainfo,
        data_prefix=dict(
            img_path='images/' + split, seg_map_path='annotations/' + split
        ),
        img_suffix='.png', pipeline=pipeline,
    )
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dataset('training', load + augment + pack),
)
val_dataloader = dict(
    batch_size=1, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dataset('validation', load + pack),
)
del dataset
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9)
)
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=100,
         by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=12, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4),
    visualization=dict(type='SegVisualizationHook'),
)
log_processor = dict(by_epoch=False, window_size=1)
visualizer = dict(
    type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')]
)
randomness = dict(seed=7)
"""

AUGMENT = """
augment = [
    dict(type='RandomResize', scale=size, ratio_range=(1.0, 2.0)),
    dict(type='RandomCrop', crop_size=size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
]
"""


def write_data(folder):
    """12 images to train on and 2 to validate on: the class is the hue."""
    rng = np.random.default_rng(0)
    for split, count in (('training', 12), ('validation', 2)):
        for kind in ('images', 'annotations'):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            labels = rng.integers(0, NUM_CLASSES, (4, 4)).astype(np.uint8)
            labels = labels.repeat(SIZE // 4, 0).repeat(SIZE // 4, 1)
            image = rng.integers(0, 80, (SIZE, SIZE, 3)).astype(np.uint8)
            image[np.arange(SIZE)[:, None], np.arange(SIZE), labels] += 150
            name = f'{index}.png'
            Image.fromarray(image).save(folder / 'images' / split / name)
            Image.fromarray(labels).save(folder / 'annotations' / split / name)


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    write_data(folder)
    return folder


@pytest.fixture
def config(tmp_path, data):
    """Writes the config with changes: config('lr = 1') -> its path."""

    def write(changes='', augment=False, name='tiny'):
        text = CONFIG.format(
            size=SIZE, num_classes=NUM_CLASSES, data=str(data)
        )
        if augment:
            text = text.replace('augment = []', AUGMENT)
        path = tmp_path / f'{name}.py'
        path.write_text(text + changes)
        return str(path)

    return write


@pytest.fixture
def tool(monkeypatch, capsys):
    """Runs a tool in this process: tool('train', ...) -> status, stderr."""

    def run(name, *args):
        forget_runs()
        spec = importlib.util.spec_from_file_location(
            f'{name}_tool', ROOT / 'tools' / f'{name}.py'
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr('sys.argv', [f'{name}.py', *map(str, args)])
        capsys.readouterr()
        try:
            cli.run(module.main)
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


def execute(command, **environment):
    """Run a command as a user would, but for what :mod:`warm` has imported;
    returns the finished process."""
    path = os.pathsep.join(
        [str(ROOT), environment.pop('PYTHONPATH', '')]
    ).rstrip(os.pathsep)
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **os.environ,
            'PYTHONPATH': path,
            'PYTHON': warm_python(),
            'OMP_NUM_THREADS': '1',
            **environment,
        },
    )


def train(*args, **environment):
    """Run tools/train.py in a process of its own."""
    command = [warm_python(), ROOT / 'tools' / 'train.py', *args]
    return execute(command, **environment)


def logged(work_dir, key='loss'):
    """What a run logged, by step; later logs replace earlier ones."""
    values = {}
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            if key in entry:
                values[entry['step']] = entry[key]
    return values


def free_port():
    """A TCP port for the processes of a run to meet at."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.fixture
def helpers():
    """The functions above, for tests in files of their own."""

    class Helpers:
        root = ROOT
        execute = staticmethod(execute)
        train = staticmethod(train)
        logged = staticmethod(logged)
        free_port = staticmethod(free_port)
        python = sys.executable

    return Helpers
