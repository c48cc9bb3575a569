"""Synapse as TransUNet gives it away."""

import h5py
import numpy as np
import pytest
from dataset_converters.medical import convert_volumes
from PIL import Image
from volumes import check_volume, volume

from mmvitcompress.datasets.medical import CheckedSynapseDataset
from mmvitcompress.errors import DataError


def test_synapse_as_transunet_has_it(tmp_path):
    source = tmp_path / 'Synapse'
    (source / 'train_npz').mkdir(parents=True)
    (source / 'test_vol_h5').mkdir()
    image, labels = volume(5, (3, 6, 6), classes=9, high=1.0)
    for index in range(3):
        np.savez(
            source / f'train_npz/case0005_slice{index:03}.npz',
            image=image[index],
            label=labels[index],
        )
    other = volume(8, (2, 6, 6), classes=9, high=1.0)
    with h5py.File(str(source / 'test_vol_h5/case0008.npy.h5'), 'w') as file:
        file['image'], file['label'] = other
    out = tmp_path / 'out'
    counts = convert_volumes('synapse', source, out, partial=True)
    assert counts == dict(train=3, val=2)
    check_volume(out, 'train', 'case0005', image, labels)
    check_volume(out, 'val', 'case0008', *other)
    prefix = dict(img_path='img_dir/val', seg_map_path='ann_dir/val')
    dataset = CheckedSynapseDataset(data_root=str(out), data_prefix=prefix)
    assert len(dataset) == 2 and len(dataset.metainfo['classes']) == 9
    # as mmseg's converter names them
    for path in (out / 'img_dir/val').iterdir():
        Image.open(path).save(path.with_suffix('.jpg'))
        path.unlink()
    dataset = CheckedSynapseDataset(data_root=str(out), data_prefix=prefix)
    assert dataset[0]['img_path'].endswith('case0008_slice000.jpg')


def test_raw_labels_of_synapse_point_to_mmseg(tmp_path):
    for folder in ('train_npz', 'test_vol_h5'):
        (tmp_path / folder).mkdir()
    image, labels = np.zeros((4, 4)), np.full((4, 4), 13)
    np.savez(
        tmp_path / 'train_npz/case0005_slice000.npz', image=image, label=labels
    )
    with h5py.File(str(tmp_path / 'test_vol_h5/case0001.npy.h5'), 'w') as file:
        file['image'], file['label'] = image[None], labels[None]
    with pytest.raises(DataError, match=r'got 13; .*converters/synapse\.py'):
        convert_volumes('synapse', tmp_path, tmp_path / 'out', partial=True)
