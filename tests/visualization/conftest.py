"""Tiny models, data and configs to draw pictures of."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import forget_runs

from mmvitcompress.models import CompressedViT, ImageClassifier
from mmvitcompress.utils import cli

ROOT = Path(__file__).parents[2]
ARCH = dict(embed_dim=24, depth=4, num_heads=3, patch_size=8, img_size=32)

CLASSIFIER = """
custom_imports = dict(imports=['mmvitcompress'])
default_scope = 'mmvitcompress'
model = dict(
    type='ImageClassifier', backbone={backbone!r}, num_classes=3,
)
val_dataloader = dict(
    batch_size=4, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='TimmDataset', data_root={data!r}, split='val',
        transform=dict(input_size=32, crop_pct=1.0),
    ),
    collate_fn=dict(type='default_collate'),
)
val_cfg = dict(type='ValLoop')
val_evaluator = dict(type='TopKAccuracy', topk=(1,))
test_dataloader = val_dataloader
test_cfg = dict(type='TestLoop')
test_evaluator = val_evaluator
"""

SEGMENTOR = """
default_scope = 'mmseg'
custom_imports = dict(imports=['mmvitcompress'])
crop_size = (32, 32)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[64.0] * 3,
        size=crop_size, bgr_to_rgb=True, seg_pad_val=255,
    ),
    backbone={backbone!r},
    decode_head=dict(
        type='FCNHead', in_channels=24, in_index=-1, channels=8, num_convs=1,
        concat_input=False, num_classes=3, norm_cfg=dict(type='BN'),
    ),
    test_cfg=dict(mode='whole'),
)
val_dataloader = dict(
    batch_size=1, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset', data_root={data!r},
        metainfo=dict(
            classes=('wall', 'sky', 'tree'),
            palette=[[0, 0, 0], [99, 0, 0], [0, 99, 0]],
        ),
        data_prefix=dict(img_path='images', seg_map_path='annotations'),
        img_suffix='.png',
        pipeline=[
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
"""


@pytest.fixture
def make_vit():
    """A function from changes of a tiny arch to a backbone of it."""

    def make(seed=0, out=None, **changes):
        torch.manual_seed(seed)
        arch = {**ARCH, **changes}
        vit = CompressedViT(arch, **(out or {}))
        for parameter in vit.parameters():  # the usual ones are near zero
            torch.nn.init.normal_(parameter, std=0.2)
        return vit.eval()

    return make


@pytest.fixture(scope='session')
def photos(tmp_path_factory):
    """Six images in three classes, as a classifier's validation set."""
    root = tmp_path_factory.mktemp('photos')
    rng = np.random.default_rng(0)
    for index in range(6):
        path = root / 'val' / str(index // 2) / f'{index}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope='session')
def scenes(tmp_path_factory):
    """Three images of 32x40 pixels with their labels, one pixel ignored."""
    root = tmp_path_factory.mktemp('scenes')
    rng = np.random.default_rng(1)
    for folder in ('images', 'annotations'):
        (root / folder).mkdir()
    for index in range(3):
        pixels = rng.integers(0, 255, (32, 40, 3)).astype(np.uint8)
        labels = rng.integers(0, 3, (32, 40)).astype(np.uint8)
        labels[0, 0] = 255
        Image.fromarray(pixels).save(root / 'images' / f'{index}.png')
        Image.fromarray(labels).save(root / 'annotations' / f'{index}.png')
    return root


@pytest.fixture
def classifier(tmp_path, photos):
    """Writes config and training checkpoint of a classifier; their paths."""

    def write(name, **backbone):
        backbone = {'type': 'CompressedViT', 'arch': ARCH, **backbone}
        torch.manual_seed(0)
        model = ImageClassifier(dict(backbone), num_classes=3)
        config = tmp_path / f'{name}.py'
        config.write_text(
            CLASSIFIER.format(backbone=backbone, data=str(photos))
        )
        return str(config), save_run(model, tmp_path / f'{name}.pth')

    return write


@pytest.fixture
def segmentor(tmp_path, scenes):
    """The same of a segmentor."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    def write(name, **backbone):
        backbone = {
            **dict(type='mmvitcompress.CompressedViT', arch=ARCH),
            **backbone,
        }
        config = tmp_path / f'{name}.py'
        config.write_text(
            SEGMENTOR.format(backbone=backbone, data=str(scenes))
        )
        init_default_scope('mmseg')
        torch.manual_seed(len(name))
        model = MODELS.build(Config.fromfile(config).model)
        return str(config), save_run(model, tmp_path / f'{name}.pth')

    return write


def save_run(model, path):
    """Write what a training run of the model would; returns the path."""
    arch = model.backbone.arch.to_dict()
    content = {'state_dict': model.state_dict(), 'meta': {'arch': arch}}
    torch.save(content, path)
    return str(path)


@pytest.fixture
def visualize(monkeypatch, capsys):
    """Runs tools/visualize.py in this process -> status, stdout, stderr."""

    def run(*args):
        path = ROOT / 'tools' / 'visualize.py'
        spec = importlib.util.spec_from_file_location('visualize_tool', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr('sys.argv', ['visualize.py', *map(str, args)])
        capsys.readouterr()
        status = 0
        try:
            cli.run(module.main)
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def forgotten_runs():
    """No visualizers and so on from before, and none left behind."""
    forget_runs()
    yield
    forget_runs()
