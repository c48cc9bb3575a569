"""Runs of configs/distill, made small: training, resuming, exporting."""

import json

import numpy as np
import pytest
import torch
from documents import ROOT
from mmengine.config import Config
from PIL import Image

from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.channels import (
    MacBudget,
    ReductionSchedule,
    SelectionRules,
    is_compactor,
)
from mmvitcompress.engine.build import build
from mmvitcompress.engine.config import read_config
from mmvitcompress.models import CompressedViT

ARCH = dict(embed_dim=24, depth=4, num_heads=3, patch_size=8, img_size=32)
FILES = sorted((ROOT / 'configs/distill').glob('*.py'))


def test_every_method_and_model_has_its_config():
    wanted = {
        f'{method}_{model}_folder'
        for method in ('atme', 'cdcp', 'cait', 'lifeslim')
        for model in ('dinov2_s', 'deit_s', 'vit_b')
    }
    assert {path.stem for path in FILES} == wanted


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_configs_say_what_they_do(path):
    cfg = read_config(str(path))
    backbone = cfg.model.backbone
    arch = get_arch(backbone.arch)
    for key in ('token_merging', 'patch_slimming'):
        if key in backbone:
            arch = arch.replace(**{key: backbone[key]})
    images = cfg.train_dataloader.dataset.transform
    half = (0.5, 0.5, 0.5)
    assert images.get('mean') == (half if 'vit_b' in path.stem else None)
    assert cfg.val_dataloader.dataset.transform.get('mean') == (
        images.get('mean')
    )
    assert not any(side % arch.patch_size for side in images.input_size[1:])
    iterations = cfg.train_cfg.max_iters
    assert cfg.param_scheduler[-1].end == iterations
    for hook in cfg.get('custom_hooks', []):
        if not hook.type.endswith('CDCPHook'):
            continue
        budget = MacBudget.of(arch, hook.img_size)
        floors = SelectionRules(**hook.rules).floors(budget.widths)
        budget.check(hook.target, floors)
        schedule = ReductionSchedule(
            hook.target,
            budget.reduction(),
            hook.warmup,
            hook.increment,
            hook.interval,
        )
        schedule.check(iterations - hook.settle)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """24 images of several sizes, and a dense checkpoint."""
    root = tmp_path_factory.mktemp('distill')
    rng = np.random.default_rng(0)
    for i in range(24):
        size = (30 + 3 * (i % 5), 44, 3)
        image = rng.integers(0, 255, size, np.uint8)
        path = root / 'images' / ('a', 'b/c')[i % 2] / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    torch.manual_seed(0)
    model = CompressedViT(ARCH, final_norm=True)
    meta = {'arch': model.arch.to_dict()}
    torch.save(
        {'state_dict': model.state_dict(), 'meta': meta}, root / 'dense.pth'
    )
    return root


@pytest.fixture
def small(folder, tmp_path, monkeypatch):
    """Writes a small version of one of the configs; returns its path."""
    monkeypatch.setenv('IMAGES_ROOT', str(folder / 'images'))

    def write(method):
        cfg = Config.fromfile(
            ROOT / f'configs/distill/{method}_dinov2_s_folder.py'
        )
        backbone = cfg.model.backbone
        backbone.update(arch=ARCH, checkpoint=str(folder / 'dense.pth'))
        if 'token_merging' in backbone:
            backbone.token_merging.layers = (2, 3)
        if 'patch_slimming' in backbone:
            backbone.patch_slimming.update(base_layer=2, layers=(2, 3))
        for split in ('train', 'val', 'test'):
            loader = cfg[f'{split}_dataloader']
            loader.update(batch_size=4, num_workers=0)
            loader.persistent_workers = False
            loader.dataset.hold_out = 0.2
            loader.dataset.transform.input_size = (3, 32, 24)
        cfg.train_cfg.update(max_iters=6, val_interval=3)
        cfg.default_hooks.checkpoint.interval = 3
        cfg.default_hooks.logger.interval = 1
        cfg.log_processor.window_size = 1
        cfg.vis_backends = cfg.visualizer.vis_backends = [
            dict(type='LocalVisBackend')
        ]
        cfg.param_scheduler = []
        cfg.optim_wrapper.type = 'BFloat16OptimWrapper'
        cfg.randomness = dict(seed=1)
        for hook in cfg.get('custom_hooks', []):
            if hook.type.endswith('CDCPHook'):
                hook.update(target=hook.target - 0.1, img_size=(32, 24))
                hook.update(warmup=0, increment=0.3, interval=1, settle=3)
                hook.update(shrink=0.9, rules=dict(min_mlp_dim=8))
            else:
                hook.predictor_iters = 2
        path = tmp_path / f'{method}.py'
        cfg.dump(path)
        return str(path)

    return write


pytestmark = pytest.mark.slow


@pytest.mark.parametrize('method', ['atme', 'cdcp', 'cait', 'lifeslim'])
def test_a_run_ends_in_a_small_backbone(
    method, small, tool, folder, tmp_path, helpers
):
    config, work = small(method), tmp_path / 'work'
    assert tool('train', config, '--work-dir', work)[0] == 0
    losses = helpers.logged(work)
    assert len(losses) == 6 and losses[6] > 0
    errors = helpers.logged(work, 'feature_error')
    assert {*errors} == {3, 6}
    saved = torch.load(work / 'iter_6.pth', weights_only=True)
    assert not any('teacher' in name for name in saved['state_dict'])
    assert saved['meta']['arch']['depth'] == 4

    status, err = tool('test', config, work / 'iter_6.pth', '--work-dir', work)
    assert status == 0, err

    out = tmp_path / 'small.pth'
    report = tmp_path / 'report.json'
    status, err = tool(
        'export_pruned',
        *(config, work / 'iter_6.pth', out, '--divisor', 1),
        *('--json', report, '--images', 2),
    )
    assert status == 0, err
    stored = torch.load(out, weights_only=True)
    names = {*stored['state_dict']}
    assert {'norm.weight', 'blocks.0.attn.qkv.weight'} <= names
    assert not any(map(is_compactor, names))
    assert json.loads(report.read_text())['reduction'] > 0.05
    dense = torch.load(folder / 'dense.pth', weights_only=True)['state_dict']
    assert torch.equal(
        stored['state_dict']['norm.weight'], dense['norm.weight']
    )
    model = CompressedViT(checkpoint=str(out))
    assert model.arch.reductions or method == 'cdcp'


def test_resuming_is_exact(small, tool, tmp_path):
    config = small('cait')
    whole, halves = tmp_path / 'whole', tmp_path / 'halves'
    assert tool('train', config, '--work-dir', whole)[0] == 0
    tool('train', config, '--work-dir', halves)
    (halves / 'iter_6.pth').unlink()
    (halves / 'last_checkpoint').write_text(str(halves / 'iter_3.pth'))
    status, err = tool('train', config, '--work-dir', halves, '--resume')
    assert status == 0, err
    ends = [
        torch.load(work / 'iter_6.pth', weights_only=True)['state_dict']
        for work in (whole, halves)
    ]
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name


def test_a_model_to_look_at_has_no_teacher(small, folder):
    cfg = read_config(small('atme'))
    assert build(cfg, purpose='measure').teacher is not None
    cfg.model.backbone.checkpoint = 'none.pth'
    model = build(cfg, purpose='measure')
    assert model.teacher is None
