"""Potsdam and iSAID: from the original archives to checked data sets."""

import io
import runpy
import sys
import zipfile

import numpy as np
import pytest
from dataset_converters.isaid import convert as isaid_convert
from mmengine.registry import init_default_scope
from PIL import Image

from mmvitcompress.datasets.checks import converter
from mmvitcompress.datasets.segmentation import (
    CheckedISAIDDataset,
    CheckedPotsdamDataset,
)
from mmvitcompress.errors import ConfigError, DataError

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
POTSDAM_COLOURS = [
    (0, 0, 0),  # boundary
    *map(tuple, CheckedPotsdamDataset.METAINFO['palette']),
]
ISAID_COLOURS = CheckedISAIDDataset.METAINFO['palette']


def paint(labels, colours):
    return Image.fromarray(np.array(colours, np.uint8)[labels])


def pack(folder, archive, images):
    """Write images {name: image} into a zip."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / archive, 'w') as packed:
        for name, image in images.items():
            file = io.BytesIO()
            image.save(file, 'PNG' if name.endswith('png') else 'TIFF')
            packed.writestr(name, file.getvalue())


def convert(monkeypatch, name, source, out, *options):
    argv = ['convert', str(source), '-o', str(out), *options]
    monkeypatch.setattr(sys, 'argv', argv)
    runpy.run_path(converter(name), run_name='__main__')


@pytest.fixture
def potsdam(tmp_path, monkeypatch):
    """Two images of 24x24 in the original archives, cut into 16x16."""
    rng = np.random.default_rng(0)
    labels = {tile: rng.integers(0, 7, (24, 24)) for tile in ('2_10', '2_13')}
    for archive, folder, ending, colours in (
        ('2_Ortho_RGB.zip', '2_Ortho_RGB/', 'RGB', POTSDAM_COLOURS[::-1]),
        ('5_Labels_all.zip', '', 'label', POTSDAM_COLOURS),
    ):
        images = {
            f'{folder}top_potsdam_{tile}_{ending}.tif': paint(lab, colours)
            for tile, lab in labels.items()
        }
        pack(tmp_path / 'zips', archive, images)
    out = tmp_path / 'potsdam'
    sizes = ('--clip_size', '16', '--stride_size', '8')
    convert(monkeypatch, 'potsdam', tmp_path / 'zips', out, *sizes)
    return out, labels


def build(cls, root, split='train', **kwargs):
    prefix = dict(img_path=f'img_dir/{split}', seg_map_path=f'ann_dir/{split}')
    return cls(data_root=str(root), data_prefix=prefix, **kwargs)


def test_converted_potsdam_holds_the_original_labels(potsdam):
    init_default_scope('mmseg')
    root, labels = potsdam
    for split, tile in (('train', '2_10'), ('val', '2_13')):
        dataset = build(CheckedPotsdamDataset, root, split, pipeline=PIPELINE)
        assert len(dataset) >= 4
        for sample in dataset:
            name = sample['img_path'].rpartition('/')[2].removesuffix('.png')
            x0, y0, x1, y1 = map(int, name.split('_')[2:])
            assert name.startswith(tile)
            expected = labels[tile][y0:y1, x0:x1] - 1
            expected[expected < 0] = 255
            assert (sample['gt_seg_map'] == expected).all()


def test_clutter_can_be_left_out(potsdam):
    init_default_scope('mmseg')
    root, _ = potsdam
    six = build(CheckedPotsdamDataset, root, pipeline=PIPELINE)
    classes = six.metainfo['classes'][:5]
    five = build(
        CheckedPotsdamDataset,
        root,
        pipeline=PIPELINE,
        metainfo=dict(classes=classes),
    )
    for one, other in zip(six, five):
        whole, part = one['gt_seg_map'], other['gt_seg_map']
        assert (part[whole < 5] == whole[whole < 5]).all()
        assert (part[whole >= 5] == 255).all()


@pytest.fixture
def isaid(tmp_path):
    """One image of 40x56 for each split in the original archives."""
    labels = np.random.default_rng(1).integers(0, 16, (40, 56))
    image = paint(labels, ISAID_COLOURS)
    source = tmp_path / 'zips'
    for split in ('train', 'val', 'test'):
        name = 'images/P0001.png'
        pack(source / split / 'images', 'part1.zip', {name: image})
        if split != 'test':
            name = 'images/P0001_instance_color_RGB.png'
            masks = source / split / 'Semantic_masks'
            pack(masks, 'images.zip', {name: image})
    return source, labels


def test_converted_isaid_holds_the_original_labels(isaid, tmp_path):
    init_default_scope('mmseg')
    source, labels = isaid
    out = tmp_path / 'isaid'
    isaid_convert(source, out, size=32, overlap=16)
    dataset = build(CheckedISAIDDataset, out, pipeline=PIPELINE)
    seen = np.zeros(labels.shape, bool)
    for sample in dataset:
        name = sample['img_path'].rpartition('/')[2].removesuffix('.png')
        y0, y1, x0, x1 = map(int, name.split('_')[1:])
        assert (sample['gt_seg_map'] == labels[y0:y1, x0:x1]).all()
        seen[y0:y1, x0:x1] = True
    assert seen.all()


def test_isaid_of_one_bit_is_refused(isaid, tmp_path):
    """What mmseg's converter makes when it is run by itself."""
    source, labels = isaid
    out = tmp_path / 'isaid'
    isaid_convert(source, out)
    assert len(build(CheckedISAIDDataset, out)) == 1
    (path,) = (out / 'ann_dir/train').iterdir()
    Image.fromarray(labels.astype(np.uint8), mode='P').save(path, bits=1)
    with pytest.raises(DataError, match=r'one bit a pixel.*convert_isaid'):
        build(CheckedISAIDDataset, out)


def test_isaid_converter_says_what_is_missing(isaid, tmp_path):
    source, _ = isaid
    with pytest.raises(ConfigError, match=r'overlap .* 0\.\.31, but got 32'):
        isaid_convert(source, tmp_path / 'isaid', size=32, overlap=32)
    (source / 'val/Semantic_masks/images.zip').unlink()
    with pytest.raises(DataError, match=r'val/Semantic_masks; get .*https'):
        isaid_convert(source, tmp_path / 'isaid')
    assert not (tmp_path / 'isaid').exists()


@pytest.mark.parametrize(
    ('cls', 'name', 'variable', 'archive'),
    [
        (CheckedPotsdamDataset, 'potsdam', 'POTSDAM', '2_Ortho_RGB.zip'),
        (CheckedISAIDDataset, 'convert_isaid', 'ISAID', '_masks'),
    ],
)
@pytest.mark.parametrize('lazy', [False, True])
def test_missing_data_tell_how_to_get_them(
    tmp_path, cls, name, variable, archive, lazy
):
    with pytest.raises(DataError) as caught:
        build(cls, tmp_path / 'none', lazy_init=lazy).full_init()
    message = str(caught.value)
    assert 'none/img_dir/train' in message and archive in message
    assert f'{name}.py' in message and f'{variable}_ROOT' in message
    assert 'https://' in message


def test_half_converted_data_are_refused(potsdam):
    root, _ = potsdam
    first = min((root / 'img_dir/train').iterdir())
    first.rename(root / 'away.png')
    with pytest.raises(DataError, match=f'1 label maps .*/{first.name}'):
        build(CheckedPotsdamDataset, root)
    (root / 'away.png').rename(first)
    (root / 'ann_dir/train' / first.name).unlink()
    with pytest.raises(DataError, match=f'1 of .* missing .*{first.name}'):
        build(CheckedPotsdamDataset, root)


def test_a_list_of_names_may_leave_label_maps_out(potsdam):
    root, _ = potsdam
    name = min((root / 'img_dir/train').iterdir()).stem
    (root / 'names.txt').write_text(name)
    assert len(build(CheckedPotsdamDataset, root, ann_file='names.txt')) == 1


def test_original_colours_are_no_label_maps(potsdam):
    root, labels = potsdam
    first = min((root / 'ann_dir/train').iterdir())
    paint(labels['2_10'], POTSDAM_COLOURS).save(first)
    with pytest.raises(DataError, match='map of class indices'):
        build(CheckedPotsdamDataset, root)


def test_converters_are_found_where_mmseg_is():
    for name in ('potsdam', 'isaid'):
        assert converter(name).endswith(f'dataset_converters/{name}.py')
    assert (
        converter('none') == 'MMSEGMENTATION/tools/dataset_converters/none.py'
    )
