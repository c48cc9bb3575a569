"""Swin's recipes: what they say, that they build, that their models step."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData

from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.errors import CheckpointError

ROOT = Path(__file__).parents[2]
METHODS = ('dense', 'atme', 'cdcp', 'cait')
SIZES = {'t': 'tiny', 's': 'small'}
MERGES = {'t': (5, 6), 's': (7, 13)}
RECIPES = [(method, size) for method in METHODS for size in SIZES]
HEADS = {'mmseg': 'upernet_{}_swin_{}_ade20k'}
HEADS['mmdet'] = 'cascade_mask_rcnn_{}_swin_{}_coco'

# Everything that a config names is looked up, in full size but without
# memory: on the meta device.
BUILD = """
import sys
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import (
    DATASETS, HOOKS, METRICS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS,
    PARAM_SCHEDULERS, init_default_scope)
from mmengine.visualization import Visualizer

Visualizer.get_instance('current')  # which some hooks ask for

def find(registry, kind):
    with registry.switch_scope_and_registry(None) as current:
        assert current.get(kind), kind

for name in sys.argv[1:]:
    cfg = Config.fromfile(f'configs/{name}.py')
    init_default_scope(cfg.default_scope)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        find(DATASETS, loader.dataset.type)
        Compose(loader.dataset.pipeline)
    find(METRICS, cfg.val_evaluator.type)
    find(OPTIM_WRAPPER_CONSTRUCTORS, cfg.optim_wrapper.constructor)
    for scheduler in cfg.param_scheduler:
        find(PARAM_SCHEDULERS, scheduler.type)
    for hook in cfg.default_hooks.values():
        HOOKS.build(hook)
    cfg.model.backbone.checkpoint = None
    with torch.device('meta'), torch.no_grad():
        model = MODELS.build(cfg.model).eval()
        levels = model.extract_feat(torch.empty(1, 3, 800, 1344))
    for i, level in enumerate(levels):
        grid = [-(-side // 2 ** (i + 2)) for side in (800, 1344)]
        assert [*level.shape[2:]] == grid, (name, i, level.shape)
    print(name)
"""


def load(head, method, size):
    name = HEADS[head].format(method, size)
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    init_default_scope(cfg.default_scope)
    return cfg


def arch_of(cfg):
    backbone = cfg.model.backbone
    arch = get_arch(backbone.arch)
    if backbone.get('token_merging'):
        arch = arch.replace(token_merging=dict(backbone.token_merging))
    return arch


@pytest.mark.parametrize('head', HEADS)
def test_types_resolve_from_a_clean_process(head):
    """One process for each library, so that none helps out another."""
    names = [HEADS[head].format(*recipe) for recipe in RECIPES]
    done = subprocess.run(
        [sys.executable, '-c', BUILD, *names],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.split() if line in names] == names


# -- what the recipes say ---------------------------------------------------


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize(('method', 'size'), RECIPES)
def test_backbones_are_those_of_the_imagenet_recipes(head, method, size):
    cfg = load(head, method, size)
    source = Config.fromfile(
        ROOT / f'configs/imagenet/{method}_swin_{size}_in1k.py'
    )
    arch, dense = arch_of(cfg), get_arch(f'swin_{SIZES[size]}')
    assert arch.token_merging == arch_of(source).token_merging
    if method in ('atme', 'cait'):
        assert arch.token_merging.layers == MERGES[size]
    prefix = '' if method == 'dense' else f'{method}_'
    checkpoint = cfg.model.backbone.checkpoint
    assert checkpoint == f'checkpoints/{prefix}swin_{SIZES[size]}_in1k.pth'
    if method == 'dense':
        assert arch == dense
        assert checkpoint == source.model.backbone.checkpoint
    if method in ('cdcp', 'cait'):
        # the widths that stand in for those of the checkpoint
        (hook,) = source.custom_hooks
        reduction = 1 - arch.macs(224, 1000) / dense.macs(224, 1000)
        assert reduction == pytest.approx(hook.target, abs=0.005)
        assert not any(width % 8 for width in arch.qk_dims + arch.mlp_dims)


def rates(cfg, model):
    """The learning rate, the decay, and the names of what isn't decayed."""
    groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    (rate,) = {group['lr'] for group in groups}
    (decay,) = {group['weight_decay'] for group in groups} - {0}
    free = {
        id(parameter)
        for group in groups
        if group['weight_decay'] == 0
        for parameter in group['params']
    }
    names = dict(model.named_parameters())
    return rate, decay, {n for n, p in names.items() if id(p) in free}


@pytest.mark.parametrize(
    ('head', 'rate', 'decay', 'drop_path'),
    [('mmseg', 6e-5, 0.01, 0.3), ('mmdet', 1e-4, 0.05, 0.2)],
)
def test_schedules_are_those_of_swin(head, rate, decay, drop_path):
    cfg = load(head, 'cait', 't')
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_dataloader.batch_size * 8 == 16
    assert cfg.model.backbone.drop_path_rate == drop_path
    model = build(cfg)
    lr, weight_decay, free = rates(cfg, model)
    assert (lr, weight_decay) == (rate, decay)
    expected = {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim == 1 or 'relative_position_bias_table' in name
    }
    assert free == expected
    if head == 'mmseg':
        assert cfg.train_cfg.max_iters == 160_000
    else:
        assert cfg.train_cfg.max_epochs == 36
        assert cfg.param_scheduler[1].milestones == [27, 33]


def test_detectors_learn_from_many_sizes():
    """The shorter side of 480 to 800 pixels; masks go along."""
    cfg = load('mmdet', 'dense', 't')
    pipeline = cfg.train_dataloader.dataset.pipeline[2:]  # from memory
    polygon = [100.0, 100, 500, 100, 500, 400, 100, 400]
    transform = Compose(
        [
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            *pipeline,
        ]
    )
    np.random.seed(0)
    shorter = set()
    for _ in range(24):
        instance = dict(
            bbox=[100, 100, 500, 400],
            bbox_label=3,
            mask=[polygon],
            ignore_flag=0,
        )
        packed = transform(
            dict(
                img=np.zeros((480, 640, 3), np.uint8),
                img_shape=(480, 640),
                ori_shape=(480, 640),
                instances=[instance],
            )
        )
        height, width = packed['inputs'].shape[1:]
        assert max(height, width) <= 1333
        found = packed['data_samples'].gt_instances
        assert found.masks.masks.shape[1:] == (height, width)
        assert len(found.masks) == len(found.bboxes)
        shorter.add(min(height, width))
    assert min(shorter) >= 480 and max(shorter) <= 800 and len(shorter) > 5


# -- steps at reduced size --------------------------------------------------


def build(cfg):
    """A quarter of all widths of the backbone, few channels in the head."""
    arch = arch_of(cfg)
    widths = {
        name: [width // 4 for width in getattr(arch, name)]
        for name in ('qk_dims', 'v_dims', 'mlp_dims')
    }
    arch = arch.replace(embed_dim=arch.embed_dim // 4, img_size=64, **widths)
    model = cfg.model
    model.backbone.update(
        arch=arch.to_dict(), checkpoint=None, img_size=64, token_merging=None
    )
    dims = list(arch.dims)
    if cfg.default_scope == 'mmseg':
        model.decode_head.update(in_channels=dims, channels=16)
        model.auxiliary_head.update(in_channels=dims[2], channels=16)
    else:
        narrow_cascade(model, dims)
    return revert_sync_batchnorm(MODELS.build(model))


def narrow_cascade(model, dims):
    fpn = model.neck[1]
    fpn.update(in_channels=dims, out_channels=16)
    model.rpn_head.update(in_channels=16, feat_channels=16)
    roi = model.roi_head
    roi.bbox_roi_extractor.out_channels = 16
    roi.mask_roi_extractor.out_channels = 16
    for head in roi.bbox_head:
        head.update(in_channels=16, conv_out_channels=16, fc_out_channels=16)
    roi.mask_head.update(in_channels=16, conv_out_channels=16)
    for stage in model.train_cfg.rcnn:
        stage.sampler.num = 16
    for proposals in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
        proposals.update(nms_pre=50, max_per_img=20)
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=5)


def check_step(model, images, samples):
    """Every parameter must get a gradient, or DDP stops."""
    losses = model.train()(images, samples, mode='loss')
    total = sum(
        torch.stack([*value]).sum()
        if isinstance(value, (list, tuple))
        else value
        for name, value in losses.items()
        if 'loss' in name
    )
    assert total.isfinite()
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    with torch.no_grad():
        return model.eval()(images, samples, mode='predict')


@pytest.mark.parametrize(('method', 'size'), RECIPES)
def test_segmentors_step(method, size):
    from mmseg.structures import SegDataSample

    cfg = load('mmseg', method, size)
    torch.manual_seed(0)
    classes = cfg.model.decode_head.num_classes
    shape = dict(img_shape=(64, 96), ori_shape=(64, 96))
    samples = [
        SegDataSample(
            gt_sem_seg=PixelData(data=torch.randint(0, classes, (1, 64, 96))),
            metainfo=shape,
        )
        for _ in range(2)
    ]
    results = check_step(build(cfg), torch.randn(2, 3, 64, 96), samples)
    assert results[1].pred_sem_seg.data.shape == (1, 64, 96)


def instances(size):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    masks = torch.zeros(2, *size, dtype=torch.uint8)
    masks[0, 4:30, 6:40] = 1
    masks[1, 20:60, 30:60] = 1
    return DetDataSample(
        gt_instances=InstanceData(
            bboxes=torch.tensor([[6.0, 4, 40, 30], [30.0, 20, 60, 60]]),
            labels=torch.tensor([0, 79]),
            masks=BitmapMasks(masks.numpy(), *size),
        ),
        metainfo=dict(
            img_shape=size,
            ori_shape=size,
            pad_shape=size,
            batch_input_shape=size,
            scale_factor=(1.0, 1.0),
        ),
    )


@pytest.mark.parametrize(('method', 'size'), RECIPES)
def test_detectors_step(method, size):
    cfg = load('mmdet', method, size)
    torch.manual_seed(0)
    image_size = (64, 96)
    samples = [instances(image_size), instances(image_size)]
    results = check_step(build(cfg), torch.randn(2, 3, *image_size), samples)
    for result in results:
        found = result.pred_instances
        assert len(found.scores) == 5
        assert found.masks.shape == (5, *image_size)


# -- start ------------------------------------------------------------------


@pytest.mark.parametrize('head', HEADS)
def test_nothing_starts_from_random_weights(head, tmp_path):
    cfg = load(head, 'cait', 't')
    cfg.model.backbone.checkpoint = str(tmp_path / 'none.pth')
    with pytest.raises(CheckpointError) as caught:
        MODELS.build(cfg.model)
    message = str(caught.value)
    assert 'none.pth' in message and 'tools/' in message
    assert '--cfg-options model.backbone.checkpoint=PATH' in message
