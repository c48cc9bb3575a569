"""A good command line of every tool, and what its options are."""

import argparse
import importlib.util
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from small_data import save
from volumes import volume

from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.models.vit import ViT

ROOT = Path(__file__).parents[2]
CONFIG = """
default_scope = 'mmseg'
custom_imports = dict(imports=['mmvitcompress'])
crop_size = (32, 40)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[64.0] * 3,
        size=crop_size, bgr_to_rgb=True, seg_pad_val=255,
    ),
    backbone=dict(
        type='mmvitcompress.CompressedViT', token_merging=[2],
        arch=dict(
            embed_dim=24, depth=4, num_heads=3, patch_size=8, img_size=32,
        ),
        patch_slimming=dict(base_layer=2, layers=[3, 4], keep_rate=0.7),
    ),
    decode_head=dict(
        type='FCNHead', in_channels=24, in_index=-1, channels=8, num_convs=1,
        concat_input=False, num_classes=3, norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    test_cfg=dict(mode='whole'),
)
train_dataloader = dict(
    batch_size=2, num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='mmvitcompress.FolderDataset', data_root={data!r},
        metainfo=dict(classes=('a', 'b', 'c')),
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        pipeline=[
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1, num_workers=0, dataset=train_dataloader['dataset'],
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4),
    constructor='mmvitcompress.ViTOptimWrapperConstructor',
)
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-6, begin=0, end=2, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False))
"""

CLASSIFIER = """
default_scope = 'mmvitcompress'
custom_imports = dict(imports=['mmvitcompress'])
model = dict(
    type='ImageClassifier', num_classes=2,
    backbone=dict(
        type='CompressedViT',
        arch=dict(
            embed_dim=24, depth=4, num_heads=3, patch_size=8, img_size=32,
        ),
    ),
)
train_dataloader = dict(
    batch_size=2, num_workers=0, collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='TimmDataset', data_root={data!r}, split='classes',
        transform=dict(input_size=32, crop_pct=1.0),
    ),
)
val_dataloader = train_dataloader
"""


def make_files(root):
    """Data, config and checkpoints that the command lines are about."""
    rng = np.random.default_rng(0)
    for name in 'ab':
        save(root / f'images/{name}.png', rng.integers(0, 256, (32, 40, 3)))
        save(root / f'maps/{name}.png', rng.integers(0, 3, (32, 40)))
    config = root / 'config.py'
    config.write_text(CONFIG.format(data=str(root)))
    for name in 'xy':
        pixels = rng.integers(0, 256, (32, 32, 3))
        save(root / f'classes/{name}/a.png', pixels)
    classifier = root / 'classifier.py'
    classifier.write_text(CLASSIFIER.format(data=str(root)))
    (root / 'text.txt').write_text('no such thing\n')
    results = [dict(name=n, quality=i, macs=9 - i) for i, n in enumerate('xy')]
    (root / 'report.json').write_text(json.dumps(results))
    init_default_scope('mmseg')
    cfg = Config.fromfile(config)
    for name, pruning in ('run', False), ('pruning', True):
        cfg.model.backbone.compactors = pruning
        model = MODELS.build(cfg.model)
        meta = dict(arch=model.backbone.arch.to_dict())
        state = dict(state_dict=model.state_dict(), meta=meta)
        torch.save(state, root / f'{name}.pth')
    write_checkpoint(
        root / 'backbone.pth',
        ViT(model.backbone.arch).state_dict(),
        model.backbone.arch,
    )
    image, labels = volume(1, (2, 8, 8), high=1.0)
    for folder in ('train', 'valid', 'test'):
        path = root / 'acdc' / folder / 'case_001_sliceED_0'
        path.parent.mkdir(parents=True)
        np.savez(path, image=image[0], label=labels[0])


def lines(root, out):
    """(tool, words, files that it makes) by the name of a command line."""
    run, model = root / 'run.pth', [root / 'config.py']
    shape = ['--shape', 32, 40]
    made = {
        'plan': ['--arch', 'vit_micro', '--target', 0.3, '--shape', 128],
        'get_flops': [*model, *shape],
        'benchmark': [*model, *shape, '--repeats', 1, '--warmup', 0],
        'convert_checkpoint': [root / 'backbone.pth', out / 'w.pth'],
        'export_pruned': [*model, root / 'pruning.pth', out / 'w.pth'],
        'export': [*model, out / 'n.pt2', *shape, '--target', 'torch'],
        'export_onnx': [*model, out / 'n.onnx', *shape, '--part', 'encoder'],
        'gpu_report': ['--device', 'cpu', '--quick', '--out', out / 'gpu'],
        'predict': [*model, run, root / 'images', '--out', out / 'seen'],
        'test': [*model, run, '--work-dir', out / 'work'],
        'train': [*model, '--work-dir', out / 'work'],
        'make_digits': ['--out', out / 'digits', '--scenes', 4],
        'convert_medical': ['acdc', root / 'acdc', out / 'acdc', '--partial'],
        'convert_isaid': [root / 'isaid', '--out', out / 'isaid'],
        'knn': [root / 'classifier.py', '--k', 1],
        'compare': [*model, '--baseline', *model, '--work-dir', out / 'all'],
        'demo': ['--out', out / 'demo', '--data', out / 'digits'],
    }
    more = {
        'benchmark': ['--device', 'cpu'],
        'export_pruned': ['--images', 2],
        'export': ['--dynamic', 'none', '--repeats', 1],
        'export_onnx': ['--dynamic', 'none', '--repeats', 1],
    }
    tools = {k: (k, [*v, *more.get(k, [])]) for k, v in made.items()}
    for kind in ('merges', 'life', 'attention', 'features'):
        words = [kind, *model, run, '--out', out / f'{kind}.png']
        tools[f'visualize {kind}'] = 'visualize', words
    channels = ['channels', root / 'pruning.pth', '--out', out / 'c.png']
    tools['visualize channels'] = 'visualize', channels
    pair = ['compare', *model, run, '--dense', *model, run]
    tools['visualize compare'] = 'visualize', pair
    report = ['curve', root / 'report.json', '--out', out / 'curve.png']
    tools['visualize curve'] = 'visualize', report
    return {k: (t, [*map(str, w)]) for k, (t, w) in tools.items()}


def main_of(tool):
    """The function of a tool that a command line calls."""
    name = f'{tool}_tool'
    path = ROOT / 'tools' / f'{tool}.py'
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if tool == 'demo':  # minutes of what other tools do
        module.make_digits = lambda _: sys.exit()
    if tool == 'gpu_report':  # minutes; tests/analysis has them
        module.tasks = lambda plan: []
    if tool == 'compare':
        nothing = dict(run=lambda *_: sys.exit())
        module.Cell = type('Cell', (module.Cell,), nothing)
    return module.main


class _Captured(Exception):
    pass


def parser_of(tool, words=()):
    """The parser of a tool, or of the one of its kinds that is named."""

    def capture(parser, *_, **__):
        raise _Captured(parser)

    with patch.object(argparse.ArgumentParser, 'parse_args', capture):
        try:
            main_of(tool)()
        except _Captured as captured:
            parser = captured.args[0]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[words[0]]
    return parser


@contextmanager
def typed(tool, words):
    """As if a command line had been typed."""
    with patch.object(sys, 'argv', [f'{tool}.py', *words]):
        yield
