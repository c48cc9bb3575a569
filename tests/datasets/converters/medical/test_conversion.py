"""What all conversions of medical data keep to."""

import sys
from pathlib import Path

import numpy as np
import pytest
from dataset_converters import medical_volumes as medical_reading
from dataset_converters.medical import (
    convert_polyps,
    convert_volumes,
    to_grey,
)

from mmvitcompress.errors import DataError, DependencyError


@pytest.mark.parametrize('dataset', ['acdc', 'synapse', 'polyp'])
def test_an_empty_folder_says_where_to_get_the_data(tmp_path, dataset):
    (tmp_path / 'empty').mkdir()
    for source in ('empty', 'none'):
        with pytest.raises(DataError, match=r'looked for .*https://'):
            if dataset == 'polyp':
                convert_polyps(tmp_path / source, tmp_path / 'out')
            else:
                convert_volumes(dataset, tmp_path / source, tmp_path / 'out')


def test_nothing_is_overwritten(acdc_npz, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/mine').touch()
    with pytest.raises(DataError, match=r'out.* exists'):
        convert_volumes('acdc', acdc_npz[0], tmp_path / 'out', True)
    assert (tmp_path / 'out/mine').exists()


@pytest.mark.parametrize(
    ('package', 'read'),
    [
        ('nibabel', medical_reading.read_nifti),
        ('h5py', medical_reading.read_h5),
    ],
)
def test_missing_packages_are_named(monkeypatch, package, read):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=f'pip install {package}'):
        read(Path('x'))


def test_intensities_become_grey_levels():
    known = to_grey(np.array([0.0, 0.2, 1.0]))
    assert known.tolist() == [0, 51, 255], 'those in 0..1 are only scaled'
    assert to_grey(np.array([0.2, 0.4])).tolist() == [51, 102]
    assert to_grey(np.array([-100.0, 0.0, 300.0])).tolist() == [0, 64, 255]
    assert to_grey(np.array([7.0, 7.0])).tolist() == [0, 0]
