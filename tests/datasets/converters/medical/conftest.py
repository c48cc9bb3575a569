"""Small medical data sets, in the layouts in which they are given away."""

import nibabel
import numpy as np
import pytest
from PIL import Image
from volumes import PATIENTS, volume


def save_nifti(path, array):
    """Save an array (x, y, z)."""
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)


@pytest.fixture
def acdc_nifti(tmp_path):
    """Three patients as the challenge gives them away; path and volumes."""
    volumes = {}
    for patient in PATIENTS:
        folder = tmp_path / f'ACDC/training/patient{patient:03}'
        folder.mkdir(parents=True)
        (folder / 'Info.cfg').write_text('ED: 1\nES: 12\n')
        save_nifti(
            folder / f'patient{patient:03}_4d.nii.gz', np.zeros((2, 2, 2, 2))
        )
        for frame in (1, 12):
            case = f'patient{patient:03}_frame{frame:02}'
            image, labels = volumes[case] = volume(100 * patient + frame)
            save_nifti(folder / f'{case}.nii.gz', image.T.astype(np.float32))
            save_nifti(folder / f'{case}_gt.nii.gz', labels.T)
    other = tmp_path / 'ACDC/testing/patient101'
    other.mkdir(parents=True)
    for name in ('patient101_frame01', 'patient101_frame01_gt'):
        save_nifti(other / f'{name}.nii.gz', np.zeros((6, 8, 1), np.float32))
    return tmp_path / 'ACDC', volumes


@pytest.fixture
def acdc_npz(tmp_path):
    """As TransUNet's split is given away; path and volumes."""
    source, volumes = tmp_path / 'ACDC', {}
    for folder, patient in (('train', 1), ('valid', 19), ('test', 2)):
        (source / folder).mkdir(parents=True)
        # eleven slices: case_001_sliceED_10 comes before …_2 by name
        image, labels = volume(patient, (11, 4, 4), high=1.0)
        volumes[folder] = image, labels
        if folder == 'test':
            path = source / folder / f'case_{patient:03}_volume_ED.npz'
            np.savez(path, img=image, label=labels)
            continue
        for index in range(11):
            name = f'case_{patient:03}_sliceED_{index}.npz'
            np.savez(
                source / folder / name, img=image[index], label=labels[index]
            )
    return source, volumes


TESTS = ('Kvasir', 'CVC-ClinicDB', 'CVC-ColonDB', 'ETIS-LaribPolypDB')


@pytest.fixture
def polyps(tmp_path):
    """PraNet's collection, two images each."""
    root = tmp_path / 'polyp'
    rng = np.random.default_rng(0)
    for folder, names in (
        ('TrainDataset', ('image', 'mask')),
        *((f'TestDataset/{name}', ('images', 'masks')) for name in TESTS),
    ):
        for index in range(2):
            image = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
            mask = rng.choice([0, 3, 250, 255], (6, 8)).astype(np.uint8)
            if index:  # some masks have three channels
                mask = mask[..., None].repeat(3, 2)
            for name, array in zip(names, (image, mask)):
                path = root / folder / name / f'{index}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return root
