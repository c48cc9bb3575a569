"""Every form of image classification data, and what is wrong with it."""

import multiprocessing
import tarfile

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from PIL import Image
from torch.utils.data import DataLoader

from mmvitcompress.datasets import (
    RepeatedAugSampler,
    TimmDataset,
    TimmIterableDataset,
    samplers,
)
from mmvitcompress.errors import ConfigError, DataError, DependencyError

CLASSES = ('ant', 'bee', 'cat')
PER_CLASS = 4
TRANSFORM = dict(input_size=16, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """train/<class>/<i>.png, each of one grey of its own."""
    root = tmp_path_factory.mktemp('folder')
    for label, name in enumerate(CLASSES):
        folder = root / 'train' / name
        folder.mkdir(parents=True)
        for i in range(PER_CLASS):
            grey = 20 * (PER_CLASS * label + i)
            Image.new('RGB', (16, 16), (grey,) * 3).save(folder / f'{i}.png')
    return root


def contents(dataset):
    """The grey of every image and its class."""
    return [
        (round(float(image.mean() * 255)), int(target))
        for image, target in (dataset[i] for i in range(len(dataset)))
    ]


EXPECTED = [(20 * i, i // PER_CLASS) for i in range(len(CLASSES) * PER_CLASS)]


def single_tar(images, root):
    with tarfile.open(root / 'train.tar', 'w') as tar:
        for name in CLASSES:
            tar.add(images / 'train' / name, name)
    return root


def folder_of_tars(images, root):
    (root / 'train').mkdir()
    for name in CLASSES:
        with tarfile.open(root / 'train' / f'{name}.tar', 'w') as tar:
            for file in sorted((images / 'train' / name).iterdir()):
                tar.add(file, f'{name}_{file.name}')
    return root


@pytest.mark.parametrize('pack', [single_tar, folder_of_tars])
def test_tar_equals_folder(images, tmp_path, pack):
    folder = TimmDataset(str(images), 'train', transform=TRANSFORM)
    tars = TimmDataset(
        str(pack(images, tmp_path)), 'train', transform=TRANSFORM
    )
    assert contents(folder) == EXPECTED == contents(tars)
    assert folder.class_to_idx == tars.class_to_idx
    assert tars.class_to_idx == {'ant': 0, 'bee': 1, 'cat': 2}
    with pytest.raises(ConfigError, match='hold_out needs a folder'):
        TimmDataset(str(tmp_path), 'train', hold_out=0.1)


def test_a_tar_file_as_root(images, tmp_path):
    single_tar(images, tmp_path)
    data = TimmDataset(
        str(tmp_path / 'train.tar'), 'train', transform=TRANSFORM
    )
    assert contents(data) == EXPECTED


def test_processes_share_no_place_in_a_tar(images, tmp_path):
    """Forked workers, after the parent has read: all images are whole."""
    data = TimmDataset(
        str(single_tar(images, tmp_path)), 'train', transform=TRANSFORM
    )
    data[0]
    loader = DataLoader(
        data,
        batch_size=1,
        num_workers=2,
        multiprocessing_context=multiprocessing.get_context('fork'),
    )
    parent = data.dataset.reader.tar_state.tf
    found = [(round(float(i.mean() * 255)), int(t)) for i, t in loader]
    assert found == EXPECTED
    # a child opens the file anew, while the parent keeps its own
    data._process = -1
    data[1]
    assert data.dataset.reader.tar_state.tf is not parent


def test_torchvision(images):
    data = TimmDataset(
        str(images), 'train', name='torch/image_folder', transform=TRANSFORM
    )
    assert contents(data) == EXPECTED
    assert data.class_to_idx == {'ant': 0, 'bee': 1, 'cat': 2}


@pytest.mark.parametrize('name', ['', 'torch/image_folder'])
@pytest.mark.parametrize('damage', ['cut', 'text', 'header'])
def test_a_damaged_image_is_named(images, tmp_path, name, damage):
    good = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    folder = tmp_path / 'train' / 'ant'
    folder.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(good).save(folder / f'{i}.png')
    content = (folder / '1.png').read_bytes()
    (folder / '1.png').write_bytes(
        {
            'cut': content[: len(content) // 2],
            'text': b'no image',
            'header': content[:20] + b'?' * 8 + content[28:],
        }[damage]
    )
    data = TimmDataset(str(tmp_path), 'train', name, transform=TRANSFORM)
    assert data[0][0].shape == (3, 16, 16)
    where = r'ant/1\.png' if not name else '1 of ImageFolder'
    with pytest.raises(DataError, match=f'{where} cannot be read'):
        data[1]
    if not name:
        (folder / '1.png').unlink()
        with pytest.raises(DataError, match=r'1\.png cannot be read'):
            data[1]


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r'no folder .*train.*no file .*tar'):
        TimmDataset(str(tmp_path), 'train')
    (tmp_path / 'train.tar').write_bytes(b'no tar file')
    with pytest.raises(DataError, match='cannot be opened'):
        TimmDataset(str(tmp_path), 'train')
    with tarfile.open(tmp_path / 'train.tar', 'w'):
        pass
    with pytest.raises(DataError, match='cannot be opened'):
        TimmDataset(str(tmp_path), 'train')


@pytest.mark.parametrize(
    ('name', 'package'),
    [
        ('wds/x', 'webdataset'),
        ('hfds/x', 'datasets'),
        ('hfids/x', 'datasets'),
        ('tfds/x', 'tensorflow_datasets'),
    ],
)
def test_a_missing_package_is_named(tmp_path, name, package, monkeypatch):
    monkeypatch.setattr(
        'mmvitcompress.datasets.reading.find_spec', lambda name: None
    )
    cls = TimmDataset if name.startswith('hfds') else TimmIterableDataset
    with pytest.raises(DependencyError, match=f'pip install {package}'):
        cls(str(tmp_path), 'train', name)


def test_in_sequence_or_in_any_order(images):
    with pytest.raises(
        ConfigError, match=r'TimmIterableDataset.*sampler=None'
    ):
        TimmDataset(str(images), 'train', 'wds/')
    with pytest.raises(ConfigError, match='any order'):
        TimmIterableDataset(str(images), 'train', '')
    with pytest.raises(ConfigError, match='hold_out'):
        TimmIterableDataset(str(images), 'train', 'wds/', hold_out=0.1)


@pytest.fixture
def shards(images, tmp_path):
    """Two shards of six images each."""
    files = sorted((images / 'train').rglob('*.png'))
    for shard in range(2):
        with tarfile.open(tmp_path / f'train-{shard:04d}.tar', 'w') as tar:
            for i in range(shard, len(files), 2):
                label = tmp_path / f'{i}.cls'
                label.write_text(str(CLASSES.index(files[i].parent.name)))
                tar.add(files[i], f'{i:03d}.png')
                tar.add(label, f'{i:03d}.cls')
    return dict(
        data_root=str(tmp_path),
        split='train-{0000..0001}.tar|12',
        name='wds/',
    )


@pytest.mark.parametrize('workers', [0, 2])
def test_webdataset(shards, workers):
    def loader(is_training, told=workers):
        return Runner.build_dataloader(
            dict(
                dataset=dict(
                    type='mmvitcompress.TimmIterableDataset',
                    is_training=is_training,
                    transform=TRANSFORM,
                    batch_size=4,
                    num_workers=told,
                    **shards,
                ),
                sampler=None,
                batch_size=4,
                num_workers=workers,
                collate_fn=dict(type='default_collate'),
            ),
            seed=0,
        )

    evaluation = loader(False)
    found = [
        (round(float(image.mean() * 255)), int(target))
        for images, targets in evaluation
        for image, target in zip(images, targets)
    ]
    assert sorted(found) == EXPECTED and len(evaluation.dataset) == 12

    training = loader(True)
    epochs = []
    for epoch in range(2):
        training.dataset.set_epoch(epoch)
        batches = list(training)
        # as many as MMEngine counts on, and all full
        assert [len(t) for _, t in batches] == [4] * len(training)
        epochs.append([t.tolist() for _, t in batches])
    assert epochs[0] != epochs[1]
    with pytest.raises(ConfigError, match='num_workers'):
        list(loader(True, told=2 - workers // 2))
    with pytest.raises(ConfigError, match=r'2 shards .* 3 workers'):
        loader(True, told=3)


def test_hugging_face(images, tmp_path):
    pytest.importorskip('datasets')  # which brings pyarrow and pandas
    name, cache = str(images / 'train'), str(tmp_path)
    data = TimmDataset(cache, 'train', f'hfds/{name}', TRANSFORM)
    assert contents(data) == EXPECTED
    assert data.class_to_idx == {'ant': 0, 'bee': 1, 'cat': 2}
    stream = TimmIterableDataset(
        cache, 'train', f'hfids/{name}', TRANSFORM, num_samples=12
    )
    found = [(round(float(i.mean() * 255)), int(t)) for i, t in stream]
    assert sorted(found) == EXPECTED and len(stream) == 12


def test_repeats(monkeypatch):
    """Three neighbours over the processes show one image."""
    data = list(range(1000))
    # rounded down to a multiple of 256
    assert len(RepeatedAugSampler(data, seed=7)) == 768
    parts = []
    for rank in range(2):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda r=rank: (r, 2))
        sampler = RepeatedAugSampler(data, seed=7)
        assert len(sampler) == 384
        parts.append(list(sampler))
    drawn = np.stack(parts, 1).ravel()
    assert all(len(set(drawn[i : i + 3])) == 1 for i in range(0, 768, 3))
    assert len(drawn) == 768 and len(set(drawn)) == 256


@pytest.mark.slow
def test_order_hangs_on_seed_and_epoch():
    def order(seed, epoch):
        sampler = RepeatedAugSampler(range(300), seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4) and order(0, 3) != order(1, 3)
    plain = RepeatedAugSampler(range(6), num_repeats=2, shuffle=False)
    assert list(plain) == [0, 0, 1, 1, 2, 2] and len(plain) == 6
    with pytest.raises(ConfigError, match='num_repeats'):
        RepeatedAugSampler(range(6), num_repeats=0)


def test_sampler_is_built_by_name(images):
    loader = Runner.build_dataloader(
        dict(
            dataset=dict(
                type='mmvitcompress.TimmDataset',
                data_root=str(images),
                split='train',
                transform=TRANSFORM,
            ),
            sampler=dict(type='mmvitcompress.RepeatedAugSampler'),
            batch_size=4,
            collate_fn=dict(type='default_collate'),
        ),
        seed=3,
    )
    assert loader.sampler.seed == 3
    drawn = torch.cat([images for images, _ in loader])
    assert len(drawn) == len(loader.dataset) == 12
    # of 12 images in 3 copies each, 4 fill an epoch
    assert len(drawn.unique(dim=0)) == 4
