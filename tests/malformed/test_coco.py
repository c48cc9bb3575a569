"""COCO files that scripts and disks have changed."""

import json
import math

import numpy as np
import pytest
import registered
from malformed import accepted, cases, damaged, in_turn, odd

from mmvitcompress.registry import DATASETS

pytestmark = pytest.mark.slow

TABLES = 'images', 'annotations', 'categories'
SHAPES = (
    *([], [[]], [[1, 2]], [[1, 2, 3]], [[1, 2, 3, 4, 5, 6, 7]], [[2, 2] * 4]),
    *({'counts': [1], 'size': [16, 24]}, {'counts': 'abc', 'size': [16, 24]}),
    *({'counts': [384], 'size': [16, 24]}, {'counts': [0, 384]}, [['a'] * 8]),
    *({'counts': [9, 375], 'size': [1, 1]}, [[math.nan] * 8], [[1e9] * 8]),
)
BOXES = [0, 0, 0, 0], [5, 5, -3, 4], [1, 1, math.inf, 2], [99, 99, 5, 5]
BOXES += ['1', '2', '3', '4'], [2, 2, 8], [[2, 2, 8, 8]], [None] * 4


def spoilt(rng, content):
    """A COCO file's content that something happened to, and what to name."""
    table = rng.choice(TABLES)
    how = rng.randrange(8)
    if how == 0:
        content[table] = odd(rng, content[table])
    elif how == 1:
        del content[table]
    elif how == 2:
        return odd(rng)
    elif how == 3:
        content[table] += rng.choice([[odd(rng)], content[table][:1]])
    elif how == 4:
        content['annotations'][0]['segmentation'] = rng.choice(SHAPES)
    elif how == 5:
        content['annotations'][0]['bbox'] = rng.choice(BOXES)
    else:
        entry = rng.choice(content[table])
        key = rng.choice([*entry])
        entry[key] = odd(rng, entry[key])
        if how == 7 and rng.random() < 0.3:
            del entry[key]
    return content


@cases('coco')
def test_coco_files_are_right_or_refused(rng, tmp_path, capsys):
    config = registered.coco(tmp_path)
    name = in_turn(rng, ['CheckedCocoDataset', 'NucleiDataset'])
    path = tmp_path / 'coco.json'
    if rng.random() < 0.2:
        path.write_bytes(damaged(rng, path.read_bytes()))
    else:
        content = spoilt(rng, json.loads(path.read_text()))
        path.write_text(json.dumps(content, default=str))
    found = []

    def main():
        kind = f'mmvitcompress.{name}'
        dataset = registered.build(DATASETS, dict(config, type=kind))
        found.extend(dataset[i] for i in range(len(dataset)))

    if accepted(main, [path.name], capsys):
        for item in found:
            check(item)


def check(item):
    """Boxes and masks are of the image, and of one another."""
    height, width = item['img'].shape[:2]
    boxes = item['gt_bboxes'].numpy()
    masks = item['gt_masks']
    assert np.isfinite(boxes).all() and len(boxes) == len(masks)
    assert ((boxes[:, 2:] > boxes[:, :2]).all(1)).all()
    assert (boxes[:, :2] < [width, height]).all() and (boxes[:, 2:] > 0).all()
    assert (masks.height, masks.width) == (height, width)
    assert len(item['gt_bboxes_labels']) == len(boxes)
    assert not item['gt_bboxes_labels'].any()
    assert masks.to_ndarray().shape == (len(boxes), height, width)
