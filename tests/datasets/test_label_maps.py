"""Label maps that would be learnt or counted wrongly are named."""

import json
import logging
import os
from zlib import crc32

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmvitcompress.datasets import label_check
from mmvitcompress.datasets.label_check import check_label_maps
from mmvitcompress.datasets.label_maps import label_table
from mmvitcompress.datasets.segmentation import (
    CheckedADE20KDataset,
    CheckedPotsdamDataset,
    DigitInkDataset,
    FolderDataset,
)
from mmvitcompress.errors import ConfigError, DataError

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
PREFIX = dict(img_path='images', seg_map_path='labels')
CLASSES = ('ground', 'crack')


@pytest.fixture
def root(tmp_path, save_pair, monkeypatch):
    """Four pairs of 6x4 pixels that hold labels 0, 1 and 255."""
    init_default_scope('mmseg')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    for index in range(4):
        labels = np.arange(24).reshape(4, 6) % 2
        labels[0, 0] = 255
        image = tmp_path / f'images/{index}.png'
        save_pair(image, tmp_path / f'labels/{index}.png', labels)
    return tmp_path


def build(root, cls=FolderDataset, classes=CLASSES, **kwargs):
    metainfo = dict(classes=classes) if classes else None
    return cls(
        data_root=str(root),
        data_prefix=PREFIX,
        pipeline=PIPELINE,
        metainfo=metainfo,
        **kwargs,
    )


def damage(path, kind):
    labels = np.asarray(Image.open(path)).copy()
    if kind == 'colours':
        labels = np.stack([labels] * 3, -1)
    elif kind == 'range':
        labels[2, 2] = 7
    elif kind == 'wrapping':  # 256 + 1, of which 8 bits are label 1
        labels = np.full((4, 6), 257, np.uint16)
    elif kind == 'fractions':
        path.unlink()
        path = path.with_suffix('.tif')
        labels = labels * np.float32(0.5)
    elif kind == 'half':
        labels = labels[::2, ::2]
    elif kind == 'turned':
        labels = labels.T
    Image.fromarray(labels).save(path)
    if kind == 'truncated':
        path.write_bytes(path.read_bytes()[:-30])
    if kind == 'empty':
        path.write_bytes(b'')
    if kind == 'flipped':  # in what is stored of the pixels
        content = bytearray(path.read_bytes())
        content[content.index(b'IDAT') + 9] ^= 4
        path.write_bytes(content)
    if kind == 'bomb':  # a header of 3.6 gigapixels
        content = bytearray(path.read_bytes())
        content[16:24] = (60000).to_bytes(4, 'big') * 2
        content[29:33] = crc32(content[12:29]).to_bytes(4, 'big')
        path.write_bytes(content)


WRONG = {
    'colours': r'2\.png must be a map of class indices',
    'range': r'2\.png must hold labels 0\.\.1 or 255, but got 7',
    'wrapping': r'2\.png must hold labels 0\.\.1 or 255, but got 257',
    'fractions': r'2\.tif must be a map of class indices.* float32',
    'half': r'2\.png must be as large as its image, 4×6 .* got 2×3',
    'turned': r'2\.png must be as large as its image, 4×6 .* got 6×4',
    'truncated': r'2\.png is no readable image',
    'empty': r'2\.png is no readable image',
    'flipped': r'2\.png is no readable image .*: fetch or write it again',
    'bomb': r'2\.png is no readable image .*decompression bomb',
}


@pytest.mark.parametrize('kind', WRONG)
def test_a_bad_label_map_is_named(root, kind):
    """Not the first, in the check and when it is loaded."""
    damage(root / 'labels/2.png', kind)
    dataset = build(root)
    assert len(dataset) == 4
    assert dataset[1]['gt_seg_map'].shape == (4, 6)
    with pytest.raises(DataError, match=WRONG[kind]):
        dataset[2]
    with pytest.raises(DataError, match=f'1 of 4 .*{WRONG[kind]}'):
        check_label_maps([dataset], progress=False)


@pytest.mark.parametrize(
    'wrap', [lambda d: ConcatDataset([d, d]), lambda d: RepeatDataset(d, 2)]
)
def test_all_bad_ones_are_listed_through_wrappers(root, wrap):
    dataset = build(root)
    for kind, index in (('range', 1), ('half', 3)):
        damage(root / f'labels/{index}.png', kind)
    (root / 'images/2.png').write_bytes(b'no image')
    with pytest.raises(DataError) as caught:
        check_label_maps([wrap(dataset)], progress=False)
    message = str(caught.value)
    assert '3 of 4 label maps cannot be used' in message
    for name in ('labels/1.png', 'images/2.png', 'labels/3.png'):
        assert name in message
    assert message.endswith(FolderDataset.SOURCE)


def test_what_was_read_is_remembered_until_files_change(root, monkeypatch):
    read = []

    def counting(pair, whole=label_check.read_pair):
        read.append(os.path.basename(pair[0]))
        return whole(pair)

    monkeypatch.setattr(label_check, 'read_pair', counting)
    dataset = build(root)
    check_label_maps([dataset])
    assert read == ['0.png', '1.png', '2.png', '3.png']
    check_label_maps([dataset])
    assert len(read) == 4
    damage(root / 'labels/1.png', 'range')
    os.utime(root / 'images/3.png', ns=(1, 1))
    for _ in range(2):  # a fault is remembered, too
        with pytest.raises(DataError, match=r'1 of 4 .*1\.png'):
            check_label_maps([dataset])
    assert read[4:] == ['1.png', '3.png']
    # with as many classes as there are labels the same files are right
    check_label_maps([build(root, classes=tuple('abcdefgh'))])
    (memory,) = (root / 'cache/mmvitcompress').iterdir()
    memory.write_text('{')
    with pytest.raises(DataError):
        check_label_maps([dataset])
    assert len(read) == 10 and len(json.loads(memory.read_text())) == 4


def test_many_are_read_by_processes(root, monkeypatch, capsys):
    monkeypatch.setattr(label_check, 'FEW', 1)
    damage(root / 'labels/2.png', 'range')
    with pytest.raises(DataError, match=r'1 of 4 .*2\.png'):
        check_label_maps([build(root)])
    assert 'checking label maps' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('labels', 'said'),
    [
        ([0, 255], 'a single class, 0 (ground), and 255, which is ignored. M'),
        ([1, 1], 'hold a single class, 1 (crack).'),
        ([255, 255], 'nothing but ignored pixels.'),
        ([0, 1], None),
    ],
)
def test_suspicious_sets_are_warned_of(
    root, save_pair, labels, said, monkeypatch
):
    logged = []
    monkeypatch.setattr(
        label_check, 'print_log', lambda *args: logged.append(args)
    )
    for index in range(4):
        image = root / f'images/{index}.png'
        save_pair(image, root / f'labels/{index}.png', [labels])
    check_label_maps([build(root)], progress=False)
    assert len(logged) == (said is not None)
    for message, logger, level in logged:
        assert message.startswith('The 4 label maps') and said in message
        assert (logger, level) == ('current', logging.WARNING)


def test_rotated_photos_fit_maps_of_what_is_seen(root):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new('RGB', (4, 6)).save(root / 'images/1.jpg', exif=exif)
    (root / 'images/1.png').unlink()
    dataset = build(root)
    check_label_maps([dataset], progress=False)
    assert dataset[1]['img'].shape[:2] == dataset[1]['gt_seg_map'].shape


def test_formats_may_mix(root):
    names = ['0.JPG', '1.png', '2.tif', '3.jpeg']
    for name in names:
        Image.new('RGB', (6, 4), (9, 9, 9)).save(root / 'images' / name)
    for stem in '023':
        (root / f'images/{stem}.png').unlink()
    (root / 'labels/3.png').rename(root / 'labels/3.PNG')
    (root / 'images/._1.jpg').write_bytes(b'what macOS leaves')
    dataset = build(root)
    paths = [dataset.get_data_info(i)['img_path'] for i in range(4)]
    assert [os.path.basename(path) for path in paths] == names
    assert all(sample['gt_seg_map'].shape == (4, 6) for sample in dataset)
    Image.new('RGB', (6, 4)).save(root / 'images/1.bmp')
    with pytest.raises(DataError, match=r'1\.bmp and .*1\.png would be one'):
        build(root)


def test_the_zero_label_can_be_left_out(root):
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    for index in range(4):
        Image.fromarray(labels).save(root / f'labels/{index}.png')
        Image.new('RGB', (2, 2)).save(root / f'images/{index}.png')
    dataset = build(root, reduce_zero_label=True)
    check_label_maps([dataset], progress=False)
    assert dataset[3]['gt_seg_map'].tolist() == [[255, 0], [1, 255]]
    damage(root / 'labels/0.png', 'colours')
    labels[0, 0] = 3
    Image.fromarray(labels).save(root / 'labels/0.png')
    with pytest.raises(DataError, match=r'labels 0\.\.2 or 255, but got 3'):
        build(root, reduce_zero_label=True)


def test_classes_must_be_named_one_by_one(root):
    for wrong in ('object', {'a', 'b'}, (1, 2)):
        with pytest.raises(ConfigError, match='tuple of names or a file'):
            build(root, classes=wrong)
    (root / 'names.txt').write_text('ground\ncrack\n')
    dataset = build(root, classes=str(root / 'names.txt'))
    assert tuple(dataset.metainfo['classes']) == CLASSES


def test_more_classes_than_labels_are_refused(root):
    names = [f'class {i}' for i in range(256)]
    assert len(build(root, classes=names[:255])) == 4
    with pytest.raises(ConfigError, match=r'at most 255 labels.* got 256'):
        build(root, classes=names)


@pytest.mark.parametrize(
    ('cls', 'classes', 'count'),
    [
        (CheckedADE20KDataset, None, 151),
        (CheckedADE20KDataset, ('tree', 'wall'), 151),
        (CheckedPotsdamDataset, None, 7),
        (DigitInkDataset, None, 11),
    ],
)
def test_labels_become_what_mmseg_makes_of_them(root, cls, classes, count):
    labels = np.array([*range(count), 255], np.uint8)[None]
    for index in range(4):
        Image.fromarray(labels).save(root / f'labels/{index}.png')
        Image.new('RGB', labels.shape[::-1]).save(root / f'images/{index}.png')
    dataset = build(root, cls, classes)
    assert dataset.labels == count
    found = dataset[0]['gt_seg_map']
    # mmseg's own transform loses the height of one pixel
    stock = BaseSegDataset(
        *('', '.png'),
        data_root=str(root),
        data_prefix=PREFIX,
        pipeline=PIPELINE,
        reduce_zero_label=dataset.reduce_zero_label,
    )
    stock.label_map = dataset.label_map
    stock.full_init()
    info = dict(stock.get_data_info(0), label_map=dataset.label_map)
    expected = stock.pipeline(info)['gt_seg_map']
    assert found.tolist() == [expected.tolist()]
    table = label_table(dataset.label_map, dataset.reduce_zero_label)
    assert table[255] == 255


def test_both_may_say_what_zero_means_but_not_otherwise(root):
    pipeline = [PIPELINE[0], dict(PIPELINE[1], reduce_zero_label=True)]
    dataset = FolderDataset(
        data_root=str(root),
        data_prefix=PREFIX,
        metainfo=dict(classes=CLASSES),
        pipeline=pipeline,
    )
    with pytest.raises(ConfigError, match='set it in the data set alone'):
        dataset[0]
