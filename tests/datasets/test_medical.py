"""Medical data sets, from the layouts in which they are given away."""

import io
import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine import DATASETS as ROOT
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from mmseg.registry import DATASETS as MMSEG
from PIL import Image

from mmvitcompress.datasets import medical_reading
from mmvitcompress.datasets.medical import (
    ACDCDataset,
    CheckedSynapseDataset,
    PolypDataset,
)
from mmvitcompress.datasets.medical_conversion import (
    convert_polyps,
    convert_volumes,
    to_grey,
)
from mmvitcompress.errors import DataError, DependencyError

REPO = Path(__file__).parents[2]
PATIENTS = (1, 2, 19)  # of the training, test and validation set


class FakeHDF5(dict):
    """What is needed of ``h5py.File`` where h5py isn't installed."""

    def __init__(self, path, mode='r'):
        content = io.BytesIO(Path(path).read_bytes()) if mode == 'r' else None
        super().__init__(np.load(content) if content else {})
        self.path, self.mode = path, mode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.mode == 'w':
            with open(self.path, 'wb') as file:
                np.savez(file, **self)


@pytest.fixture
def h5py(monkeypatch):
    try:
        return __import__('h5py')
    except ImportError:
        fake = SimpleNamespace(File=FakeHDF5)
        monkeypatch.setitem(sys.modules, 'h5py', fake)
        return fake


@pytest.fixture
def save_nifti(monkeypatch):
    """Saves an array (x, y, z), with nibabel or a stand-in for it."""
    try:
        nibabel = __import__('nibabel')
    except ImportError:

        def load(path):
            with open(path, 'rb') as file:
                return SimpleNamespace(dataobj=np.load(file))

        fake = SimpleNamespace(load=load)
        monkeypatch.setitem(sys.modules, 'nibabel', fake)

        def save(path, array):
            with open(path, 'wb') as file:
                np.save(file, array)
    else:

        def save(path, array):
            image = nibabel.Nifti1Image(array, np.eye(4))
            nibabel.save(image, path)

    return save


def volume(seed, shape=(3, 8, 6), classes=4, high=900.0):
    """Image in 0..high and labels, both (D, H, W)."""
    rng = np.random.default_rng(seed)
    image = rng.random(shape) * high
    image[0, 0, 0], image[-1, -1, -1] = 0, high
    return image, rng.integers(0, classes, shape).astype(np.uint8)


def pixels(path):
    return np.asarray(Image.open(path))


def check_volume(out, split, case, image, labels):
    """The slices in ``out`` are those of ``image``, in their order."""
    names = [f'{case}_slice{i:03}.png' for i in range(len(image))]
    found = sorted((out / 'img_dir' / split).glob(f'{case}_*'))
    assert [path.name for path in found] == names
    grey = image * (255 / max(1, image.max()))
    for index, name in enumerate(names):
        mine = pixels(out / 'img_dir' / split / name)
        assert mine.dtype == np.uint8
        assert np.abs(mine - grey[index]).max() <= 0.5 + 1e-3
        assert (pixels(out / 'ann_dir' / split / name) == labels[index]).all()


# -- ACDC -------------------------------------------------------------------


@pytest.fixture
def acdc_nifti(tmp_path, save_nifti):
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


def test_acdc_from_hdf5(tmp_path, h5py):
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
    for name in ('out', 'out.part'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'mine').touch()
        with pytest.raises(DataError, match=f'{name}.* exists'):
            convert_volumes('acdc', acdc_npz[0], tmp_path / 'out', True)
        assert (tmp_path / name / 'mine').exists()
        (tmp_path / name / 'mine').unlink()
        (tmp_path / name).rmdir()


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


# -- Synapse ----------------------------------------------------------------


def test_synapse_as_transunet_has_it(tmp_path, h5py):
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


def test_raw_labels_of_synapse_point_to_mmseg(tmp_path, h5py):
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


# -- polyps -----------------------------------------------------------------

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


def test_polyps(polyps, tmp_path):
    out = tmp_path / 'out'
    counts = convert_polyps(polyps, out, partial=True)
    names = (
        'train',
        *(f'test/{n}' for n in ('kvasir', 'clinicdb', 'colondb', 'etis')),
    )
    assert counts == dict.fromkeys(names, 2)
    for folder, name in (
        ('TrainDataset', 'train'),
        ('TestDataset/ETIS-LaribPolypDB', 'test/etis'),
    ):
        for index in range(2):
            image, mask = (
                pixels(next((polyps / folder).glob(f'{kind}*/{index}.png')))
                for kind in ('image', 'mask')
            )
            mask = mask if mask.ndim == 2 else mask[..., 0]
            assert (pixels(out / f'images/{name}/{index}.png') == image).all()
            labels = pixels(out / f'annotations/{name}/{index}.png')
            assert (labels == (mask > 100)).all()
    tests = PolypDataset(
        data_root=str(out),
        data_prefix=dict(
            img_path='images/test', seg_map_path='annotations/test'
        ),
    )
    assert len(tests) == 8


def test_half_unpacked_polyps_are_refused(polyps, tmp_path):
    out = tmp_path / 'out'
    with pytest.raises(DataError, match='TrainDataset has 2 of 1450'):
        convert_polyps(polyps, out)
    (polyps / 'TestDataset/Kvasir/masks/1.png').unlink()
    with pytest.raises(
        DataError, match=r'2 images and 1 masks; without .*: 1;'
    ):
        convert_polyps(polyps, out, partial=True)
    (polyps / 'TestDataset/Kvasir/masks').rename(polyps / 'elsewhere')
    with pytest.raises(DataError, match=r'no folder .*Kvasir/mask'):
        convert_polyps(polyps, out, partial=True)


@pytest.mark.parametrize(
    ('content', 'message'),
    [(b'\x89PNG', 'no readable image'), (None, 'must be of one size')],
)
def test_damaged_polyps_are_named(polyps, tmp_path, content, message):
    path = polyps / 'TrainDataset/mask/1.png'
    if content:
        path.write_bytes(content)
    else:
        Image.new('L', (3, 3)).save(path)
    with pytest.raises(DataError, match=rf'1\.png.* {message}'):
        convert_polyps(polyps, tmp_path / 'out', partial=True)
    assert not (tmp_path / 'out.part').exists()


# -- data sets --------------------------------------------------------------


@pytest.mark.parametrize(
    'cls', [ACDCDataset, CheckedSynapseDataset, PolypDataset]
)
def test_registered_and_missing_data_tell_where_to_get_them(cls, tmp_path):
    name = f'mmvitcompress.{cls.__name__}'
    assert ROOT.get(name) is cls and MMSEG.get(name) is cls
    assert len(set(map(tuple, cls.METAINFO['palette']))) == cls.LABELS
    prefix = dict(img_path='img_dir/train', seg_map_path='ann_dir/train')
    message = r'no folder .*https://.*_ROOT'
    with pytest.raises(DataError, match=message):
        cls(data_root=str(tmp_path), data_prefix=prefix)
    (tmp_path / 'img_dir/train').mkdir(parents=True)
    (tmp_path / 'ann_dir/train').mkdir(parents=True)
    with pytest.raises(DataError, match=r'no \*\.png in .*https://.*_ROOT'):
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


# -- tool -------------------------------------------------------------------


@pytest.fixture
def tool(monkeypatch, capsys):
    """Runs the tool; returns its status, output and errors."""

    def run(*args):
        path = str(REPO / 'tools/convert_medical.py')
        monkeypatch.setattr(sys, 'argv', [path, *map(str, args)])
        status = 0
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


def test_the_tool(tool, acdc_npz, tmp_path):
    source, out = acdc_npz[0], tmp_path / 'out'
    status, stdout, stderr = tool('acdc', source, out)
    assert (status, stdout) == (1, '')
    assert stderr.count('\n') == 1 and 'train has 1 of 140' in stderr
    figures = tmp_path / 'figures.json'
    status, stdout, _ = tool(
        'acdc', source, out, '--partial', '--json', figures
    )
    assert status == 0
    assert '3/3 patient002_ED: 11 slices for test' in stdout
    assert json.loads(figures.read_text()) == dict(train=11, val=11, test=11)


def test_the_tool_explains_itself(tool):
    status, stdout, _ = tool('--help')
    assert status == 0
    for word in ('synapse', 'TrainDataset', 'nibabel', '--partial'):
        assert word in stdout


def test_the_tool_converts_polyps_quietly(tool, polyps, tmp_path):
    out = tmp_path / 'out'
    status, stdout, _ = tool('polyp', polyps, out, '--partial', '--quiet')
    assert status == 0 and stdout.count('\n') == 1
    assert '2 test/etis' in stdout
