import numpy as np
import pytest
from dataset_converters.coco_format import (
    coco_annotation,
    encode_rle,
    mask_box,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@pytest.mark.parametrize(
    ('mask', 'counts'),
    [
        ([[0, 1], [0, 1]], [2, 2]),
        ([[1, 0], [0, 0]], [0, 1, 3]),
        ([[0, 1, 0], [1, 1, 0]], [1, 3, 2]),
        ([[0, 0], [0, 0]], [4]),
        ([[1, 1], [1, 1]], [0, 4]),
    ],
)
def test_runs_go_down_the_columns_and_begin_with_zeros(mask, counts):
    rle = encode_rle(np.array(mask, bool))
    assert rle == {'size': list(np.shape(mask)), 'counts': counts}


@given(masks)
def test_pycocotools_reads_the_same_mask(mask):
    rle = coco_mask.frPyObjects(encode_rle(mask), *mask.shape)
    assert (coco_mask.decode(rle) == mask).all()


@given(masks.filter(np.any))
def test_box_and_area_are_those_of_pycocotools(mask):
    found = coco_annotation(7, 3, 2, mask, source=11)
    rle = coco_mask.frPyObjects(found['segmentation'], *mask.shape)
    assert found['bbox'] == coco_mask.toBbox(rle).tolist()
    assert found['area'] == coco_mask.area(rle)
    ids = [found[key] for key in ('id', 'image_id', 'category_id', 'source')]
    assert ids == [7, 3, 2, 11]


def test_box_holds_the_last_pixel():
    mask = np.zeros((6, 8), bool)
    mask[2, 3] = mask[4, 5] = True
    assert mask_box(mask) == [3, 2, 3, 3]
