import numpy as np
import pytest
import torch
from mmengine import DATASETS as ROOT
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS as MMSEG
from mmseg.visualization import SegLocalVisualizer
from PIL import Image

from mmvitcompress.datasets.palettes import BACKGROUND, class_palette
from mmvitcompress.datasets.segmentation import (
    CamVidDataset,
    CheckedADE20KDataset,
    DigitScenesDataset,
    FolderDataset,
)
from mmvitcompress.errors import ConfigError, DataError

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
PREFIX = dict(img_path='images', seg_map_path='labels')


@pytest.fixture
def camvid(tmp_path, save_pair):
    """Three pairs of 6x4 pixels, label 11 among them; returns the root."""
    for index in range(3):
        labels = np.arange(24).reshape(4, 6) % 12
        save_pair(
            tmp_path / f'images/{index}.png',
            tmp_path / f'labels/{index}.png',
            labels,
        )
    return tmp_path


def build(cls, root, **kwargs):
    return cls(data_root=str(root), data_prefix=PREFIX, **kwargs)


@pytest.mark.parametrize('cls', [CamVidDataset, DigitScenesDataset])
def test_registered_with_and_without_prefix(cls):
    assert ROOT.get(f'mmvitcompress.{cls.__name__}') is cls
    assert MMSEG.get(f'mmvitcompress.{cls.__name__}') is cls
    assert MMSEG.get(cls.__name__) is cls


def test_mmseg_keeps_its_own_ade20k():
    assert MMSEG.get('ADE20KDataset') is not CheckedADE20KDataset


def test_unlabelled_camvid_pixels_are_ignored(camvid):
    init_default_scope('mmseg')
    dataset = build(CamVidDataset, camvid, pipeline=PIPELINE)
    assert len(dataset) == 3
    expected = np.arange(24).reshape(4, 6) % 12
    expected[expected == 11] = 255
    assert (dataset[1]['gt_seg_map'] == expected).all()


def test_camvid_classes_can_be_chosen(camvid):
    init_default_scope('mmseg')
    dataset = build(
        CamVidDataset,
        camvid,
        pipeline=PIPELINE,
        metainfo=dict(classes=('car', 'road')),
    )
    labels = np.arange(24).reshape(4, 6) % 12
    expected = np.where(labels == 8, 0, np.where(labels == 3, 1, 255))
    assert (dataset[0]['gt_seg_map'] == expected).all()
    assert dataset.metainfo['palette'] == [(64, 0, 128), (128, 64, 128)]


def test_camvid_images_may_be_jpeg(camvid):
    for path in (camvid / 'images').iterdir():
        Image.open(path).save(path.with_suffix('.jpg'))
        path.unlink()
    dataset = build(CamVidDataset, camvid)
    assert [dataset[i]['img_path'][-5:] for i in range(3)] == [
        *('0.jpg', '1.jpg', '2.jpg')
    ]


def test_camvid_meta_is_complete():
    assert len(CamVidDataset.METAINFO['classes']) == 11
    palette = CamVidDataset.METAINFO['palette']
    assert len(set(palette)) == 11
    assert palette[3] == (128, 64, 128), 'road, as in label_colors.txt'


def test_list_of_names_is_checked_too(camvid):
    names = camvid / 'names.txt'
    names.write_text('0\n2\n')
    assert len(build(CamVidDataset, camvid, ann_file='names.txt')) == 2
    names.write_text('0\n7\n')
    with pytest.raises(DataError, match=r'1 of 2 files .*images/7\.\*'):
        build(CamVidDataset, camvid, ann_file='names.txt')


@pytest.mark.parametrize('name', ['images', 'labels'])
def test_missing_folder_is_named(camvid, name):
    (camvid / name).rename(camvid / 'elsewhere')
    with pytest.raises(DataError, match=f'no folder .*{name}.*CAMVID_ROOT'):
        build(CamVidDataset, camvid)


@pytest.mark.parametrize('img_suffix', [None, '.jpg'])
def test_folder_without_images_is_refused(camvid, img_suffix):
    for path in (camvid / 'images').iterdir():
        path.rename(path.with_suffix('.gif'))
    with pytest.raises(DataError, match=r'no .*\*\.jpg'):
        build(CamVidDataset, camvid, img_suffix=img_suffix)


def test_images_without_label_map_are_counted(camvid):
    (camvid / 'labels/0.png').unlink()
    (camvid / 'labels/2.png').unlink()
    with pytest.raises(DataError, match=r'2 of 3 .*labels/0\.png'):
        build(CamVidDataset, camvid)


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    dataset = build(CamVidDataset, tmp_path / 'none', lazy_init=True)
    assert dataset.metainfo['classes'][0] == 'sky'
    with pytest.raises(DataError, match='no folder'):
        dataset.full_init()


def test_images_alone_will_do_where_no_labels_are_asked_for(camvid):
    dataset = CamVidDataset(
        data_root=str(camvid), data_prefix=dict(img_path='images')
    )
    assert 'seg_map_path' not in dataset[0]


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        (np.full((4, 6), 12, np.uint8), r'0\.\.11 or 255, but got 12'),
        (np.zeros((4, 6, 3), np.uint8), r'an image of shape \(4, 6, 3\)'),
    ],
)
def test_label_maps_of_another_kind_are_refused(camvid, labels, message):
    Image.fromarray(labels).save(camvid / 'labels/0.png')
    with pytest.raises(DataError, match=message):
        build(CamVidDataset, camvid)


def test_cut_off_label_map_is_refused(camvid):
    path = camvid / 'labels/0.png'
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match='no readable image'):
        build(CamVidDataset, camvid)


def test_ade20k_counts_from_zero_for_other_objects(tmp_path, save_pair):
    init_default_scope('mmseg')
    labels = np.array([[0, 1, 150], [2, 0, 0]])
    save_pair(tmp_path / 'images/a.jpg', tmp_path / 'labels/a.png', labels)
    dataset = build(CheckedADE20KDataset, tmp_path, pipeline=PIPELINE)
    assert dataset[0]['gt_seg_map'].tolist() == [[255, 0, 149], [1, 255, 255]]
    assert len(dataset.metainfo['classes']) == 150
    with pytest.raises(DataError, match='ADE20K_ROOT'):
        build(CheckedADE20KDataset, tmp_path / 'none')


def test_missing_digits_tell_how_to_make_them(tmp_path):
    with pytest.raises(DataError, match=r'tools/make_digits\.py'):
        build(DigitScenesDataset, tmp_path)


@pytest.mark.parametrize('cls', [CamVidDataset, DigitScenesDataset])
def test_mmseg_draws_with_the_palette(cls):
    meta = cls.METAINFO
    visualizer = SegLocalVisualizer(alpha=1.0)
    for label in range(len(meta['classes'])):
        drawn = visualizer._draw_sem_seg(
            np.zeros((8, 8, 3), np.uint8),
            PixelData(data=torch.full((1, 8, 8), label)),
            meta['classes'],
            meta['palette'],
            with_labels=False,
        )
        assert (drawn == meta['palette'][label]).all()


def test_own_folder_has_as_many_labels_as_classes(camvid):
    init_default_scope('mmseg')
    metainfo = dict(classes=['Background', *map(str, range(11))])
    dataset = build(FolderDataset, camvid, metainfo=metainfo)
    assert len(dataset) == 3
    grey, *others = dataset.metainfo['palette']
    assert grey == BACKGROUND
    assert len({grey, *others}) == 12
    marks = {(0, 0, 0), (255, 255, 255), grey}
    assert not marks & {*class_palette([str(i) for i in range(150)])}
    metainfo['classes'].pop()
    with pytest.raises(DataError, match='but got 11'):
        build(FolderDataset, camvid, metainfo=metainfo)


def test_own_folder_must_know_its_classes(camvid):
    with pytest.raises(ConfigError, match='must know its classes'):
        build(FolderDataset, camvid)
