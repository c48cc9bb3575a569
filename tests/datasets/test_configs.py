"""The configs' bases: they parse, fit together, and load real files."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS as DET_METRICS
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS as SEG_MODELS
from torch import nn

from mmvitcompress.errors import DataError

pytestmark = pytest.mark.slow

BASE = Path(__file__).parents[2] / 'configs/_base_'
ROOTS = {
    'ade20k': 'ADE20K_ROOT',
    'camvid': 'CAMVID_ROOT',
    'potsdam': 'POTSDAM_ROOT',
    'isaid': 'ISAID_ROOT',
    'digits_scenes': 'DIGITS_ROOT',
    'digits_instances': 'DIGITS_ROOT',
    'coco_instance': 'COCO_ROOT',
    'nuclei_instances': 'NUCLEI_ROOT',
    'nuclei_maps': 'NUCLEI_ROOT',
    'folder': 'FOLDER_ROOT',
    'synapse': 'SYNAPSE_ROOT',
    'acdc': 'ACDC_ROOT',
    'polyp': 'POLYP_ROOT',
}
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def load(name):
    return Config.fromfile(BASE / f'{name}.py')


def first_batch(loader):
    loader.update(num_workers=0, persistent_workers=False)
    return next(iter(Runner.build_dataloader(loader, seed=0)))


@pytest.fixture
def small_trees(tmp_path, save_pair, monkeypatch):
    """Segmentation data in miniature, where the environment points."""
    labels = np.arange(60 * 80).reshape(60, 80) // 40
    for split in ('training', 'validation'):
        save_pair(
            tmp_path / f'ade/images/{split}/a.jpg',
            tmp_path / f'ade/annotations/{split}/a.png',
            labels,
        )
    for split in ('train', 'val'):
        save_pair(
            tmp_path / f'camvid/images/{split}/a.png',
            tmp_path / f'camvid/annotations/{split}/a.png',
            labels % 12,
        )
        save_pair(
            tmp_path / f'potsdam/img_dir/{split}/a.png',
            tmp_path / f'potsdam/ann_dir/{split}/a.png',
            labels % 7,
        )
        save_pair(
            tmp_path / f'isaid/img_dir/{split}/a.png',
            tmp_path / f'isaid/ann_dir/{split}/a_instance_color_RGB.png',
            labels % 16,
        )
    monkeypatch.setenv('ADE20K_ROOT', str(tmp_path / 'ade'))
    monkeypatch.setenv('CAMVID_ROOT', str(tmp_path / 'camvid'))
    monkeypatch.setenv('POTSDAM_ROOT', str(tmp_path / 'potsdam'))
    monkeypatch.setenv('ISAID_ROOT', str(tmp_path / 'isaid'))


@pytest.fixture
def digits_env(digits_root, monkeypatch):
    monkeypatch.setenv('DIGITS_ROOT', str(digits_root))


@pytest.mark.parametrize('name', ROOTS)
def test_environment_leads_to_the_data(name, monkeypatch):
    monkeypatch.delenv(ROOTS[name], raising=False)
    cfg = load(f'datasets/{name}')
    roots = [cfg[loader].dataset.data_root for loader in LOADERS]
    assert all(root.startswith('data/') for root in roots)
    monkeypatch.setenv(ROOTS[name], '/some where/else')
    cfg = load(f'datasets/{name}')
    roots = [cfg[loader].dataset.data_root for loader in LOADERS]
    assert roots == ['/some where/else'] * 3
    ann_file = cfg.val_evaluator.get('ann_file', roots[0])
    assert ann_file.startswith('/some where/else')


@pytest.mark.parametrize('name', ROOTS)
def test_documented_overrides_lead_to_the_data(name):
    cfg = load(f'datasets/{name}')
    guide = (BASE.parents[1] / 'docs/usage.md').read_text()
    section = guide[guide.index('### Where data lie') :].split('\n#')[0]
    pairs = dict(re.findall(r'(\w+(?:\.\w+)+)=([^\s`]+)', section))
    assert len(pairs) == 5
    told = 'ann_file' in cfg.val_evaluator
    assert told == (name in ('coco_instance', 'digits_instances'))
    if not told:
        pairs = {k: v for k, v in pairs.items() if 'evaluator' not in k}
    cfg.merge_from_dict(pairs)
    for loader in LOADERS:
        assert cfg[loader].dataset.data_root == 'DIR'
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.get('ann_file', 'DIR').startswith('DIR')


@pytest.mark.parametrize('name', ROOTS)
def test_missing_data_stop_before_training(name, tmp_path, monkeypatch):
    init_default_scope('mmdet' if 'instance' in name else 'mmseg')
    monkeypatch.setenv(ROOTS[name], str(tmp_path / 'none'))
    cfg = load(f'datasets/{name}')
    classes = dict(metainfo=dict(classes=('a', 'b')))
    own = classes if name == 'folder' else {}
    for loader in LOADERS:
        with pytest.raises(DataError, match=ROOTS[name]):
            DATASETS.build({**cfg[loader].dataset, **own})


@pytest.mark.parametrize(
    ('name', 'classes', 'test_size'),
    [
        ('ade20k', 150, (512, 683)),
        ('camvid', 11, (60, 80)),
        ('potsdam', 5, (60, 80)),
        ('isaid', 16, (60, 80)),
    ],
)
def test_segmentation_bases_load(small_trees, name, classes, test_size):
    init_default_scope('mmseg')
    cfg = load(f'datasets/{name}')
    cfg.train_dataloader.batch_size = 2
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    assert len(dataset.metainfo['classes']) == classes
    batch = first_batch(cfg.train_dataloader)
    for image, sample in zip(batch['inputs'], batch['data_samples']):
        assert image.dtype == torch.uint8 and image.shape[0] == 3
        assert all(
            side <= crop for side, crop in zip(image.shape[1:], cfg.crop_size)
        )
        assert sample.gt_sem_seg.shape == image.shape[1:]
        labels = sample.gt_sem_seg.data.unique().tolist()
        assert set(labels) <= {*range(classes), 255}
    batch = first_batch(cfg.test_dataloader)
    assert batch['inputs'][0].shape[1:] == test_size
    assert batch['data_samples'][0].gt_sem_seg.shape == (60, 80)


def test_digit_scenes_load(digits_env):
    init_default_scope('mmseg')
    cfg = load('datasets/digits_scenes')
    batch = first_batch(cfg.train_dataloader)
    assert len(batch['inputs']) == cfg.train_dataloader.batch_size
    seen = set()
    for image, sample in zip(batch['inputs'], batch['data_samples']):
        assert image.shape[1:] == sample.gt_sem_seg.shape
        seen |= set(sample.gt_sem_seg.data.unique().tolist())
        assert 'flip' not in sample or not sample.flip
    assert 8 < len(seen) <= 11 and max(seen) <= 10
    batch = first_batch(cfg.val_dataloader)
    assert torch.stack(batch['inputs']).shape == (4, 3, 96, 96)


def test_digit_instances_load(digits_env):
    init_default_scope('mmdet')
    cfg = load('datasets/digits_instances')
    batch = first_batch(cfg.train_dataloader)
    assert len(batch['inputs']) == cfg.train_dataloader.batch_size
    for image, sample in zip(batch['inputs'], batch['data_samples']):
        assert image.shape[1] <= 128 and image.shape[2] <= 128
        masks = sample.gt_instances.masks.masks
        assert len(masks) == len(sample.gt_instances.labels)
        assert masks.shape[1:] == image.shape[1:]
    batch = first_batch(cfg.val_dataloader)
    assert torch.stack(batch['inputs']).shape == (4, 3, 128, 128)


@pytest.mark.parametrize(
    'name', ['ade20k', 'camvid', 'potsdam', 'isaid', 'digits_scenes']
)
def test_test_time_augmentation_packs(small_trees, digits_env, name):
    init_default_scope('mmseg')
    cfg = load(f'datasets/{name}')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    batch = first_batch(cfg.test_dataloader)
    times = {'camvid': 8, 'digits_scenes': 3}.get(name, 12)
    assert len(batch['inputs']) == times
    assert len({image[0].shape for image in batch['inputs']}) > 2


def test_perfect_instances_score_perfectly(digits_env, digits_root):
    init_default_scope('mmdet')
    cfg = load('datasets/digits_instances')
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    metric = DET_METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    for item in dataset:
        sample = item['data_samples']
        truth = sample.gt_instances  # of the original size
        prediction = dict(
            img_id=sample.img_id,
            ori_shape=sample.ori_shape,
            pred_instances=dict(
                bboxes=truth.bboxes.tensor,
                scores=torch.ones(len(truth)),
                labels=truth.labels,
                masks=truth.masks.to_tensor(torch.bool, 'cpu'),
            ),
        )
        metric.process({}, [prediction])
    scores = metric.evaluate(len(dataset))
    assert scores['coco/bbox_mAP'] == scores['coco/segm_mAP'] == 1


class Net(nn.Module):
    """Of each kind of parameter one."""

    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.reg_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.norm = nn.LayerNorm(8)
        self.proj = nn.Linear(8, 8)
        self.conv = nn.Conv2d(8, 8, 1)


@pytest.mark.parametrize(
    ('name', 'iters'), [('adamw_160k', 160000), ('adamw_80k', 80000)]
)
def test_schedules(name, iters):
    cfg = load(f'schedules/{name}')
    assert cfg.train_cfg.max_iters == iters
    assert iters % cfg.train_cfg.val_interval == 0
    net = Net()
    wrapper = build_optim_wrapper(net, cfg.optim_wrapper)
    decay = {}
    for group in wrapper.param_groups:
        assert group['betas'] == (0.9, 0.999)
        for parameter in group['params']:
            decay[id(parameter)] = group['weight_decay']
    decayed = {
        key for key, value in net.named_parameters() if decay[id(value)] > 0
    }
    assert decayed == {'proj.weight', 'conv.weight'}
    assert {decay[id(net.proj.weight)], decay[id(net.conv.weight)]} == {0.01}

    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=6e-5)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(item, optimizer=optimizer))
        for item in cfg.param_scheduler
    ]
    rates = []
    for _ in range(iters):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            scheduler.step()
    assert rates[0] == pytest.approx(6e-11, rel=1e-3)
    assert np.argmax(rates) in (1499, 1500)
    assert max(rates) == pytest.approx(6e-5, rel=1e-3)
    middle = (1500 + iters) // 2
    assert rates[middle] == pytest.approx(3e-5, rel=1e-2)
    assert rates[-1] < 1e-9 * 6


@SEG_MODELS.register_module()
class OneConvBackbone(nn.Module):
    def __init__(self, init_cfg=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4, padding=1)

    def forward(self, images):
        return (self.conv(images),)


def test_a_run_trains_validates_and_keeps_the_best(
    tmp_path, digits_env, monkeypatch
):
    names = (
        'default_runtime',
        'datasets/digits_scenes',
        'schedules/adamw_80k',
    )
    child = tmp_path / 'child.py'
    child.write_text(
        f'_base_ = {[str(BASE / f"{name}.py") for name in names]}'
    )
    cfg = Config.fromfile(child)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.experiment_name = 'bases'
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 2
    for loader in LOADERS:
        cfg[loader].update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.batch_size = 2
    cfg.model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=[127.5] * 3,
            std=[127.5] * 3,
            bgr_to_rgb=True,
            pad_val=0,
            seg_pad_val=255,
            size=cfg.crop_size,
        ),
        backbone=dict(type='OneConvBackbone'),
        decode_head=dict(
            type='FCNHead',
            in_channels=8,
            channels=8,
            num_convs=1,
            num_classes=11,
            align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss'),
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )
    Runner.from_cfg(cfg).train()
    work = tmp_path / 'work'
    assert (work / 'best_mIoU_iter_2.pth').is_file()
    assert list(work.rglob('events.out.tfevents*'))
