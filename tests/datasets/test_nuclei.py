"""Nuclei: one split for both forms, real pipelines, metrics, errors."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmengine import Config
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from PIL import Image
from pycocotools import mask as rle

from mmvitcompress.errors import ConfigError, DataError

BASE = Path(__file__).parents[2] / 'configs/_base_/datasets'
NAMES = [f'{index:02d}.png' for index in range(20)]
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# by another road than the package's: of 2**256 names, the first fifth
HELD_OUT = {
    name
    for name in NAMES
    if int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], 'big') * 5
    < 2**32
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Twenty images of two nuclei each, masks run-length encoded."""
    for folder in ('train', 'annotations', 'semantic/train'):
        (tmp_path / folder).mkdir(parents=True)
    images, annotations = [], []
    for index, name in enumerate(NAMES):
        labels = np.zeros((256, 256 + 64 * (index % 2)), np.uint8)
        for box in ((40, 60, 52, 80), (100 + index, 120, 130 + index, 150)):
            mask = np.zeros_like(labels, order='F')
            mask[box[0] : box[2], box[1] : box[3]] = 1
            code = rle.encode(mask)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index + 1,
                    category_id=1,
                    iscrowd=0,
                    area=float(mask.sum()),
                    bbox=rle.toBbox(code).tolist(),
                    segmentation=dict(
                        size=code['size'], counts=code['counts'].decode()
                    ),
                )
            )
            labels |= mask
        height, width = labels.shape
        images.append(
            dict(id=index + 1, file_name=name, height=height, width=width)
        )
        Image.fromarray(labels * 200).convert('RGB').save(
            tmp_path / 'train' / name
        )
        Image.fromarray(labels).save(tmp_path / 'semantic/train' / name)
    content = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=1, name='nucleus')],
    )
    (tmp_path / 'annotations/train.json').write_text(json.dumps(content))
    monkeypatch.setenv('NUCLEI_ROOT', str(tmp_path))
    return tmp_path


def load(name):
    return Config.fromfile(BASE / f'{name}.py')


def names_of(dataset):
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    return {Path(path).name for path in paths}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'library'),
    [('nuclei_instances', 'mmdet'), ('nuclei_maps', 'mmseg')],
)
def test_the_split_is_that_of_the_names(root, name, library):
    init_default_scope(library)
    cfg = load(name)
    train, val, test = (DATASETS.build(cfg[key].dataset) for key in LOADERS)
    assert 0 < len(HELD_OUT) < 10
    assert names_of(val) == names_of(test) == HELD_OUT
    assert names_of(train) == set(NAMES) - HELD_OUT
    whole = DATASETS.build(dict(cfg.train_dataloader.dataset, hold_out=0))
    assert names_of(whole) == set(NAMES)


def test_instances_load(root):
    init_default_scope('mmdet')
    loader = load('nuclei_instances').train_dataloader
    loader.update(num_workers=0, persistent_workers=False)
    batch = next(iter(Runner.build_dataloader(loader, seed=0)))
    for image, sample in zip(batch['inputs'], batch['data_samples']):
        truth = sample.gt_instances
        assert image.shape == (3, 128, 128) and len(truth) > 0
        assert (truth.labels == 0).all()
        # boxes were computed anew from what the crop left of the masks
        for mask, box in zip(truth.masks.masks, truth.bboxes.tensor):
            y, x = np.nonzero(mask)
            found = [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert np.abs(np.array(found) - box.numpy()).max() <= 1


def test_perfect_instances_score_perfectly_on_the_held_out_alone(root):
    init_default_scope('mmdet')
    cfg = load('nuclei_instances')
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = dataset.metainfo
    for item in dataset:
        sample = item['data_samples']
        truth = sample.gt_instances
        prediction = dict(
            sample.to_dict(),
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


def test_maps_load(root):
    init_default_scope('mmseg')
    cfg = load('nuclei_maps')
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    batch = next(iter(loader))
    assert len(batch['inputs']) == 16
    seen = set()
    for image, sample in zip(batch['inputs'], batch['data_samples']):
        assert image.shape[1:] == sample.gt_sem_seg.shape == (128, 128)
        seen |= set(sample.gt_sem_seg.data.unique().tolist())
    assert seen == {0, 1}


@pytest.mark.parametrize(
    ('name', 'library', 'lost'),
    [
        ('nuclei_instances', 'mmdet', 'annotations/train.json'),
        ('nuclei_instances', 'mmdet', 'train/07.png'),
        ('nuclei_maps', 'mmseg', 'semantic/train/07.png'),
    ],
)
def test_what_is_missing_is_named(root, name, library, lost):
    init_default_scope(library)
    (root / lost).unlink()
    with pytest.raises(DataError) as caught:
        DATASETS.build(load(name).train_dataloader.dataset)
    message = str(caught.value)
    assert lost in message
    assert 'NUCLEI_ROOT' in message and 'BBBC038' in message


@pytest.mark.parametrize(
    'wrong', [dict(hold_out=1), dict(hold_out=-0.1), dict(held_out=True)]
)
def test_no_such_share(wrong):
    for name in ('NucleiDataset', 'NucleiMapsDataset'):
        with pytest.raises(ConfigError, match=r'hold_out must lie in \(0, 1'):
            DATASETS.build(dict(type=f'mmvitcompress.{name}', **wrong))
