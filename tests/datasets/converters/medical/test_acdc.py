"""ACDC from its three layouts; what is wrong with one is named."""

import h5py
import numpy as np
import pytest
from dataset_converters import medical_volumes as medical_reading
from dataset_converters.medical import convert_volumes
from volumes import PATIENTS, check_volume, volume

from mmvitcompress.errors import DataError

SPLIT_OF = {1: 'train', 2: 'test', 19: 'val'}


def test_acdc_from_nifti(acdc_nifti, tmp_path):
    source, volumes = acdc_nifti
    told = []
    counts = convert_volumes(
        'acdc', source, tmp_path / 'out', True, told.append
    )
    assert counts == dict(train=6, val=6, test=6)
    assert len(told) == 6 and told[0].startswith('1/6 patient001_frame01')
    for case, (image, labels) in volumes.items():
        split = SPLIT_OF[int(case[7:10])]
        check_volume(tmp_path / 'out', split, case, image, labels)


def test_acdc_from_hdf5(tmp_path):
    source = tmp_path / 'ACDC_training_volumes'
    source.mkdir()
    volumes = {}
    for patient in PATIENTS:
        case = f'patient{patient:03}_frame01'
        volumes[case] = volume(patient)
        with h5py.File(str(source / f'{case}.h5'), 'w') as file:
            file['image'], file['label'] = volumes[case]
    convert_volumes('acdc', source, tmp_path / 'out', partial=True)
    for case, pair in volumes.items():
        check_volume(tmp_path / 'out', SPLIT_OF[int(case[7:10])], case, *pair)


def test_acdc_from_slices(acdc_npz, tmp_path):
    source, volumes = acdc_npz
    counts = convert_volumes('acdc', source, tmp_path / 'out', partial=True)
    assert counts == dict(train=11, val=11, test=11)
    cases = dict(train='001', val='019', test='002')
    for split, number in cases.items():
        folder = 'valid' if split == 'val' else split
        case = f'patient{number}_ED'
        check_volume(tmp_path / 'out', split, case, *volumes[folder])


def test_transunets_split_has_70_10_and_20_patients():
    splits = [medical_reading._split_of(patient) for patient in range(1, 101)]
    counts = {split: splits.count(split) for split in set(splits)}
    assert counts == dict(train=70, val=10, test=20)


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (
            lambda root: (root / 'train').rename(root / 'elsewhere'),
            r'no train volumes; looked for .*case_001_sliceED_0\.npz',
        ),
        (
            lambda root: (root / 'test/case_002_volume_ED.npz').write_bytes(
                b'PK'
            ),
            r'case_002_volume_ED\.npz cannot be read .*fetch it again',
        ),
        (
            lambda root: np.savez(
                root / 'test/case_002_volume_ED.npz', img=np.zeros((1, 4, 4))
            ),
            'must hold an array label or mask, but holds img',
        ),
        (
            lambda root: np.savez(
                root / 'test/case_002_volume_ED.npz',
                img=np.zeros((1, 4, 4)),
                label=np.full((1, 4, 4), 9),
            ),
            r'labels of case patient002_ED must lie in 0\.\.3, but got 9',
        ),
        (
            lambda root: np.savez(
                root / 'test/case_002_volume_ED.npz',
                img=np.zeros((1, 4, 4)),
                label=np.zeros((1, 4, 5)),
            ),
            r'but got \(1, 4, 4\) and \(1, 4, 5\)',
        ),
        (
            lambda root: np.savez(
                root / 'test/case_002_volume_ED.npz',
                img=np.full((1, 4, 4), np.nan),
                label=np.zeros((1, 4, 4)),
            ),
            'no finite numbers',
        ),
        (
            lambda root: np.savez(
                root / 'train/case_001_sliceED_10.npz',
                img=np.zeros((5, 5)),
                label=np.zeros((5, 5)),
            ),
            'slices of case patient001_ED differ in size',
        ),
    ],
)
def test_damaged_data_are_named(acdc_npz, tmp_path, spoil, message):
    source, _ = acdc_npz
    spoil(source)
    with pytest.raises(DataError, match=message):
        convert_volumes('acdc', source, tmp_path / 'out', partial=True)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ['ACDC'], 'nothing half made stays'


def test_half_unpacked_acdc_is_refused(acdc_npz, tmp_path):
    with pytest.raises(DataError, match=r'train has 1 of 140; .*--partial'):
        convert_volumes('acdc', acdc_npz[0], tmp_path / 'out')


def test_volumes_without_labels_are_counted(acdc_nifti, tmp_path):
    source, _ = acdc_nifti
    lost = source / 'training/patient001/patient001_frame01_gt.nii.gz'
    lost.unlink()
    with pytest.raises(DataError, match=rf'1 of 7 .*{lost.name}'):
        convert_volumes('acdc', source, tmp_path / 'out', partial=True)


def test_two_copies_are_refused(acdc_nifti, tmp_path):
    source, _ = acdc_nifti
    copy = source / 'database'
    copy.mkdir()
    for path in (source / 'training/patient001').iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match='patient001_frame01 2 times'):
        convert_volumes('acdc', source, tmp_path / 'out', partial=True)
