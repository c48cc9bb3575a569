import json

import numpy as np
import pytest
from mmdet.registry import DATASETS as MMDET
from mmdet.visualization import DetLocalVisualizer
from mmengine.registry import init_default_scope
from PIL import Image
from pycocotools.coco import COCO

from mmvitcompress.datasets.detection import (
    CheckedCocoDataset,
    DigitInstancesDataset,
)
from mmvitcompress.errors import ConfigError, DataError

ANN_FILE = 'scenes/annotations/instances_validation.json'
NAN = float('nan')
PREFIX = dict(img='scenes/images/validation')
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
]


def build(root, cls=DigitInstancesDataset, **kwargs):
    return cls(
        data_root=str(root), ann_file=ANN_FILE, data_prefix=PREFIX, **kwargs
    )


@pytest.fixture
def copied(digits_root, tmp_path):
    """A copy of the validation scenes' images and JSON that may be spoilt."""
    for name in (
        ANN_FILE,
        *(f'{PREFIX["img"]}/0000{i}.png' for i in range(4)),
    ):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((digits_root / name).read_bytes())
    return tmp_path


def test_registered_with_and_without_prefix():
    for name in ('DigitInstancesDataset', 'mmvitcompress.CheckedCocoDataset'):
        assert MMDET.get(name).__name__ == name.split('.')[-1]


def test_mmdet_loads_the_same_instances(digits_root):
    init_default_scope('mmdet')
    dataset = build(digits_root, pipeline=PIPELINE)
    coco = COCO(digits_root / ANN_FILE)
    assert len(dataset) == 4
    for item in (dataset[0], dataset[3]):
        expected = coco.imgToAnns[item['img_id']]
        labels = [one['category_id'] - 1 for one in expected]
        assert item['gt_bboxes_labels'].tolist() == labels
        masks = np.stack([coco.annToMask(one) for one in expected])
        assert (item['gt_masks'].masks == masks).all()
        # boxes (x1, y1, x2, y2) of the masks, found anew
        for mask, box in zip(masks, item['gt_bboxes'].tensor.tolist()):
            y, x = np.nonzero(mask)
            assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert not item['gt_ignore_flags'].any()
        path = digits_root / 'scenes/annotations/validation'
        name = item['img_path'].rsplit('/', 1)[-1]
        semantic = np.asarray(Image.open(path / name))
        for mask, label in zip(masks, labels):
            assert (semantic[mask.astype(bool)] == label + 1).all()


def test_missing_json_is_named(tmp_path):
    with pytest.raises(DataError, match=r'instances_val.*make_digits\.py'):
        build(tmp_path)
    with pytest.raises(DataError, match=r'instances_val.*COCO_ROOT'):
        build(tmp_path, CheckedCocoDataset)


def test_cut_off_json_is_refused(copied):
    path = copied / ANN_FILE
    path.write_text(path.read_text()[:1000])
    with pytest.raises(DataError, match='no whole JSON file'):
        build(copied)


def test_missing_folder_and_images_are_named(copied):
    (copied / PREFIX['img'] / '00001.png').unlink()
    with pytest.raises(DataError, match=r'1 of 4 files .*00001\.png'):
        build(copied)
    (copied / PREFIX['img']).rename(copied / 'elsewhere')
    with pytest.raises(DataError, match=r'no folder .*data_prefix\.img'):
        build(copied)


def test_json_with_other_classes_is_refused(copied):
    with pytest.raises(DataError, match='knows 0 of the 80 classes person'):
        build(copied, CheckedCocoDataset)


def test_json_without_images_is_refused(copied):
    path = copied / ANN_FILE
    content = json.loads(path.read_text())
    content['images'] = content['annotations'] = []
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match='no images in'):
        build(copied)


def test_mmdet_draws_with_the_palette(digits_root):
    init_default_scope('mmdet')
    dataset = build(
        digits_root, pipeline=[*PIPELINE, dict(type='PackDetInputs')]
    )
    sample = dataset[0]['data_samples']
    digits = sample.gt_instances
    digits.bboxes = digits.bboxes.tensor
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = dataset.metainfo
    canvas = np.zeros((96, 96, 3), np.uint8)
    visualizer.add_datasample('digits', canvas, sample, draw_pred=False)
    drawn = visualizer.get_image()
    for mask in digits.masks.masks.astype(bool):
        assert drawn[mask].any()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c['annotations'][1].pop('area'), r'area of annotations\[1'),
        (lambda c: c['annotations'][1].pop('iscrowd'), r'iscrowd of annot'),
        (
            lambda c: c['annotations'][1].pop('bbox'),
            r'must be \(a finite number, .*\), but got N',
        ),
        (lambda c: c['images'][2].update(id='2'), r"images\[2\].*got '2'"),
        (lambda c: c['categories'][0].update(id='1'), r'id of categories\[0'),
        (
            lambda c: c['annotations'][1].update(bbox=[1, 1, NAN, 2]),
            r'bbox of annotations\[1\] must be .* got \[1, 1, nan, 2\]',
        ),
        (
            lambda c: c['annotations'].append(7),
            r'annotations\[\d+\] must be a dict, but got 7',
        ),
        *(
            (
                lambda c, shape=shape: c['annotations'][1].update(
                    segmentation=shape
                ),
                'polygons of finite numbers, or an RLE of .* but got',
            )
            for shape in (
                [['a'] * 6],
                dict(counts=[9, 7], size=[4, 4]),
                dict(counts='no', size=[4, 4]),
            )
        ),
        (lambda c: c.pop('categories'), 'has no list of categories'),
        (lambda c: c['annotations'][1].pop('segmentation'), 'without segm'),
    ],
)
def test_what_every_entry_needs(copied, change, message):
    init_default_scope('mmdet')
    path = copied / ANN_FILE
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        build(copied, pipeline=PIPELINE)


def test_boxes_alone_will_do_where_no_masks_are_loaded(copied):
    init_default_scope('mmdet')
    path = copied / ANN_FILE
    content = json.loads(path.read_text())
    for entry in content['annotations']:
        del entry['segmentation']
    path.write_text(json.dumps(content))
    boxes = [PIPELINE[0], dict(type='LoadAnnotations', with_bbox=True)]
    assert len(build(copied, pipeline=boxes)[0]['gt_bboxes']) > 0


def test_one_class_is_no_text(digits_root):
    with pytest.raises(ConfigError, match="but got '01'"):
        build(digits_root, metainfo=dict(classes='01'))
