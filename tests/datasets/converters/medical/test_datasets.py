"""Converted medical data, read back by data sets and configs."""

from pathlib import Path

import numpy as np
import pytest
from dataset_converters.medical import (
    convert_polyps,
    convert_volumes,
)
from mmengine import DATASETS as ROOT
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from mmseg.registry import DATASETS as MMSEG

from mmvitcompress.datasets.medical import (
    ACDCDataset,
    CheckedSynapseDataset,
    PolypDataset,
)
from mmvitcompress.errors import DataError

REPO = Path(__file__).parents[4]


@pytest.mark.parametrize(
    'cls', [ACDCDataset, CheckedSynapseDataset, PolypDataset]
)
def test_registered_and_missing_data_tell_where_to_get_them(cls, tmp_path):
    name = f'mmvitcompress.{cls.__name__}'
    assert ROOT.get(name) is cls and MMSEG.get(name) is cls
    assert len(set(map(tuple, cls.METAINFO['palette']))) == len(
        cls.METAINFO['classes']
    )
    prefix = dict(img_path='img_dir/train', seg_map_path='ann_dir/train')
    message = r'no folder .*https://.*_ROOT'
    with pytest.raises(DataError, match=message):
        cls(data_root=str(tmp_path), data_prefix=prefix)
    (tmp_path / 'img_dir/train').mkdir(parents=True)
    (tmp_path / 'ann_dir/train').mkdir(parents=True)
    with pytest.raises(
        DataError, match=r'no .*\*\.png.* in .*https://.*_ROOT'
    ):
        cls(data_root=str(tmp_path), data_prefix=prefix)


def test_masks_that_were_not_converted_are_refused(tmp_path, save_pair):
    labels = np.array([[0, 255], [3, 200]])
    save_pair(tmp_path / 'i/0.png', tmp_path / 'm/0.png', labels)
    prefix = dict(img_path='i', seg_map_path='m')
    with pytest.raises(DataError, match=r'0\.\.1 or 255, but got 3'):
        PolypDataset(data_root=str(tmp_path), data_prefix=prefix)


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
@pytest.mark.parametrize('name', ['acdc', 'polyp'])
def test_the_pipelines_of_the_configs(name, split, acdc_npz, polyps, tmp_path):
    out = tmp_path / 'out'
    if name == 'acdc':
        convert_volumes('acdc', acdc_npz[0], out, partial=True)
    else:
        convert_polyps(polyps, out, partial=True)
    init_default_scope('mmseg')
    cfg = Config.fromfile(REPO / f'configs/_base_/datasets/{name}.py')
    dataset = cfg[f'{split}_dataloader'].dataset
    dataset.data_root = str(out)
    dataset = DATASETS.build(dataset)
    size = cfg.image_size
    rng = np.random.get_state()
    np.random.seed(0)
    for index in range(2 * len(dataset)):  # to meet all augmentations
        item = dataset[index % len(dataset)]
        assert tuple(item['inputs'].shape) == (3, *size)
        labels = item['data_samples'].gt_sem_seg.data
        assert int(labels.max()) < len(dataset.metainfo['classes'])
        wanted = size if split == 'train' else item['data_samples'].ori_shape
        assert tuple(labels.shape[1:]) == tuple(wanted)
    np.random.set_state(rng)
