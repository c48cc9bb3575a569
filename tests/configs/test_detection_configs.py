"""Every config that detects instances: it builds, learns and predicts."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import get_arch

ROOT = Path(__file__).parents[2]
METHODS = ('dense', 'atme', 'cait', 'cdcp', 'lifeslim')
COCO = [
    f'configs/{head}_{method}_deit_s_coco.py'
    for head in ('mask_rcnn', 'mask2former')
    for method in METHODS
]
STOCK = 'configs/mask_rcnn_stock_deit_s_coco.py'
SMALL = [
    f'configs/{name}.py'
    for name in (
        'mask_rcnn_dense_vit_micro_nuclei',
        'mask_rcnn_atme_vit_micro_nuclei',
        'mask_rcnn_cait_vit_micro_nuclei',
        'mask2former_dense_vit_micro_nuclei',
        'mask2former_atme_vit_micro_nuclei',
        'mask_rcnn_dense_vit_micro_digits',
        'mask_rcnn_atme_vit_micro_digits',
        'mask2former_inst_dense_vit_micro_digits',
        'mask2former_inst_atme_vit_micro_digits',
    )
]
SIZE = 64

BUILD = """
import sys
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
for name in sys.argv[1:]:
    cfg = Config.fromfile(name)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.checkpoint = None
    MODELS.build(cfg.model)
    print(name)
"""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def read(name):
    cfg = Config.fromfile(ROOT / name)
    init_default_scope(cfg.default_scope)
    return cfg


def classes_of(model):
    if model.type == 'MaskRCNN':
        return model.roi_head.bbox_head.num_classes
    return model.panoptic_head.num_things_classes


def batch_of(classes, size=SIZE):
    """Two images with two squares in each."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    rng = np.random.default_rng(0)
    inputs, samples = [], []
    for index in range(2):
        masks = np.zeros((2, size, size), np.uint8)
        boxes = torch.tensor([[4.0, 6, 28, 30], [34, 20, 62, 60]])
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        image = rng.integers(0, 60, (3, size, size)) + 120 * masks.sum(0)
        shape = dict(img_shape=(size, size), ori_shape=(size, size))
        sample = DetDataSample(
            metainfo=dict(shape, scale_factor=(1.0, 1.0), img_id=index)
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes,
            labels=torch.tensor([0, classes - 1]),
            masks=BitmapMasks(masks, size, size),
        )
        sample.ignored_instances = InstanceData(bboxes=boxes[:0])
        inputs.append(torch.from_numpy(image).byte())
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def shrink(model):
    """The same model for small images."""
    model.backbone.update(checkpoint=None, img_size=SIZE)
    model.data_preprocessor.pop('batch_augments', None)
    if model.type == 'Mask2Former':
        model.train_cfg.num_points = 256
        return
    model.roi_head.bbox_head.fc_out_channels = 32
    model.train_cfg.rcnn.sampler.num = 16
    for proposals in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
        proposals.update(nms_pre=50, max_per_img=20)
    model.test_cfg.rcnn.max_per_img = 5


def test_types_resolve_from_a_clean_process():
    done = subprocess.run(
        [sys.executable, '-c', BUILD, *COCO, STOCK, *SMALL],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    built = [line for line in done.stdout.split() if line.endswith('.py')]
    assert built == [*COCO, STOCK, *SMALL]


@pytest.mark.parametrize('name', [*COCO, STOCK, *SMALL])
def test_detectors_step(name):
    """Loss, backward and predict at reduced size; optimizer and lr groups."""
    cfg = read(name)
    shrink(cfg.model)
    classes = classes_of(cfg.model)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    batch = batch_of(classes)
    data = model.train().data_preprocessor(batch, training=True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert loss.isfinite()
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
    data = model.eval().data_preprocessor(batch, training=False)
    with torch.no_grad():
        results = model(**data, mode='predict')
    for sample in results:
        found = sample.pred_instances
        assert found.masks.shape == (len(found), SIZE, SIZE)
        assert found.scores.isfinite().all()
        assert (found.labels < classes).all()
    check_strides(model, cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    groups = [group['params'] for group in wrapper.param_groups]
    optimized = {id(parameter) for group in groups for parameter in group}
    assert optimized >= {id(p) for p in model.parameters() if p.requires_grad}


def check_strides(model, cfg):
    """What anchors, regions and queries take for granted is so."""
    with torch.no_grad():
        maps = model.extract_feat(torch.zeros(1, 3, 128, 64))
    if cfg.type == 'MaskRCNN':
        strides = [side for side, _ in model.rpn_head.prior_generator.strides]
        regions = model.roi_head.bbox_roi_extractor.featmap_strides
        assert strides[: len(regions)] == list(regions)
    else:
        strides = list(cfg.panoptic_head.strides)
    for x, stride in zip(maps, strides, strict=True):
        assert x.shape[2:] == (128 // stride, 64 // stride)


def test_stock_parts_give_the_same_maps():
    """What speed is measured against loads the same weights."""
    maps, weights = [], None
    for name in ('configs/mask_rcnn_dense_deit_s_coco.py', STOCK):
        cfg = read(name)
        shrink(cfg.model)
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval().double()
        weights = weights or model.state_dict()
        model.load_state_dict(weights)
        torch.manual_seed(0)
        with torch.no_grad():
            x = torch.randn(1, 3, SIZE, 2 * SIZE).double()
            maps.append(model.extract_feat(x))
    torch.testing.assert_close(*maps, rtol=0, atol=1e-10)


def test_the_paper_recipe():
    cfg = read('configs/mask_rcnn_cait_deit_s_coco.py')
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.optim_wrapper.optimizer.lr == 2e-4
    assert cfg.train_dataloader.batch_size * 8 == 16
    assert cfg.auto_scale_lr.base_batch_size == 16
    scales = [
        step.scale for step in cfg.train_pipeline if step['type'] == 'Resize'
    ]
    assert [tuple(scale) for scale in scales] == [(1333, 800)]
    checkpoint = cfg.model.backbone.checkpoint
    assert checkpoint == 'checkpoints/cait_deit_small_in1k.pth'


def test_all_methods_differ_in_the_backbone_only():
    for name in COCO:
        dense = read(name.replace(name.split('_')[-4], 'dense')).to_dict()
        other = read(name).to_dict()
        for cfg in (dense, other):
            cfg['model'].pop('backbone')
            cfg.pop('backbone', None)
        assert dense == other, name


def test_small_cait_halves_the_backbone():
    """About what CAIT takes off DeiT-Small, 55 %."""
    cfg = read('configs/mask_rcnn_cait_vit_micro_nuclei.py')
    arch = ViTArch.from_dict(cfg.model.backbone.arch.to_dict())
    ratio = arch.macs((128, 128)) / get_arch('vit_micro').macs((128, 128))
    assert 0.4 < ratio < 0.5
