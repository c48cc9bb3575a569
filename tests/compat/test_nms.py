"""MMCV's nms family on the stand-in, against plain loops over boxes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms, nms, nms_match, soft_nms


def iou_of(a, b, offset):
    """IoU of two boxes in Python floats; 0 where both are empty."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    overlap = max(width, 0) * max(height, 0)
    area_a = (a[2] - a[0] + offset) * (a[3] - a[1] + offset)
    area_b = (b[2] - b[0] + offset) * (b[3] - b[1] + offset)
    union = area_a + area_b - overlap
    return overlap / union if union else 0.0


def loop_nms(boxes, scores, threshold, offset=0):
    order = sorted(range(len(boxes)), key=lambda i: -scores[i])
    kept = []
    for i in order:
        if all(iou_of(boxes[i], boxes[k], offset) <= threshold for k in kept):
            kept.append(i)
    return kept


def loop_soft_nms(
    boxes, scores, method, threshold=0.3, sigma=0.5, min_score=1e-3, offset=0
):
    left = {i: float(s) for i, s in enumerate(scores)}
    kept = []
    while left:
        best = max(left, key=left.get)
        kept.append((best, left.pop(best)))
        for i in list(left):
            iou = iou_of(boxes[best], boxes[i], offset)
            if method == 'gaussian':
                left[i] *= math.exp(-iou * iou / sigma)
            elif iou >= threshold:
                left[i] *= 0 if method == 'naive' else 1 - iou
            if left[i] < min_score:
                del left[i]
    return kept


def random_boxes(count, size=100.0, seed=0):
    """Boxes that overlap a lot, and scores without ties."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * size
    extent = (torch.rand(count, 2, generator=generator) + 1) * size / 3
    scores = torch.randperm(count, generator=generator) + 1.0
    return torch.cat((corner, corner + extent), 1), scores / (count + 1)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.7])
def test_nms_equals_the_loop(offset, threshold):
    boxes, scores = random_boxes(120)
    dets, inds = nms(boxes, scores, threshold, offset=offset)
    expected = loop_nms(boxes.tolist(), scores.tolist(), threshold, offset)
    assert 1 < len(expected) < 120
    assert inds.tolist() == expected
    assert torch.equal(dets, torch.cat((boxes, scores[:, None]), 1)[expected])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(0, 8)] * 2),
        max_size=25,
    ),
    st.sampled_from([0.25, 0.5, 0.6, 0.75]),
    st.sampled_from([0, 1]),
)
def test_nms_on_integer_boxes(corners, threshold, offset):
    """Ties, empty boxes and IoUs that equal the threshold exactly."""
    boxes = [(x, y, x + w, y + h) for x, y, w, h in corners]
    scores = [1 / (i + 1) for i in range(len(boxes))]
    _, inds = nms(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        threshold,
        offset=offset,
    )
    # a/b in Python floats equals 0.6 exactly for 3/5, as it must here
    assert inds.tolist() == loop_nms(boxes, scores, threshold, offset)


def test_an_iou_of_exactly_the_threshold_is_kept():
    boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0], [1.0, 0.0, 5.0, 2.0]])
    scores = torch.tensor([0.9, 0.8])
    # overlap 3·2, union 16 - 6
    assert nms(boxes, scores, 0.6)[1].tolist() == [0, 1]
    assert nms(boxes, scores, 0.59)[1].tolist() == [0]


def test_nms_filters_by_score_and_number():
    boxes, scores = random_boxes(60)
    expected = loop_nms(boxes.tolist(), scores.tolist(), 0.5)
    _, inds = nms(boxes, scores, 0.5, score_threshold=0.6, max_num=4)
    assert inds.tolist() == [i for i in expected if scores[i] > 0.6][:4]


def test_nms_accepts_numpy():
    boxes, scores = random_boxes(30)
    dets, inds = nms(boxes.numpy(), scores.numpy(), 0.4)
    assert isinstance(dets, np.ndarray) and isinstance(inds, np.ndarray)
    assert inds.tolist() == loop_nms(boxes.tolist(), scores.tolist(), 0.4)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_nms_of_large_half_precision_boxes(dtype):
    """Areas of 90 000 pixels and more overflow in float16."""
    boxes, scores = random_boxes(40, size=1000.0)
    boxes, scores = (boxes + 300).to(dtype), scores.to(dtype)
    _, inds = nms(boxes, scores, 0.5)
    assert len(inds) < 40
    assert inds.tolist() == loop_nms(boxes.tolist(), scores.tolist(), 0.5)


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('min_score', [1e-3, 0.2])
def test_soft_nms_equals_the_loop(method, offset, min_score):
    boxes, scores = random_boxes(80, seed=3)
    dets, inds = soft_nms(
        boxes, scores, 0.4, 0.5, min_score, method, offset=offset
    )
    expected = loop_soft_nms(
        boxes.tolist(), scores.tolist(), method, 0.4, 0.5, min_score, offset
    )
    assert inds.tolist() == [i for i, _ in expected]
    assert torch.equal(dets[:, :4], boxes[inds])
    lowered = torch.tensor([s for _, s in expected])
    torch.testing.assert_close(dets[:, 4], lowered, rtol=1e-5, atol=1e-6)


def test_soft_nms_by_hand():
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [9, 9, 9, 9]])
    scores = torch.tensor([0.9, 0.6, 0.5])
    # IoU 2 / 6: 0.6 · (1 - 1/3) = 0.4, now below the empty box's 0.5
    dets, inds = soft_nms(boxes, scores, 0.3, method='linear')
    assert inds.tolist() == [0, 2, 1]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.5, 0.4]))


def test_soft_nms_returns_the_best_box_whatever_its_score():
    boxes, scores = random_boxes(20)
    _, inds = soft_nms(boxes, scores * 1e-6, min_score=0.5)
    assert inds.tolist() == [scores.argmax().item()]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_soft_nms_in_half_precision(dtype):
    boxes, scores = random_boxes(10, size=1000.0)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    dets, inds = soft_nms(boxes, scores, 0.4)
    expected = loop_soft_nms(boxes.tolist(), scores.tolist(), 'linear', 0.4)
    assert dets.dtype == dtype
    assert inds.tolist() == [i for i, _ in expected]


def test_soft_nms_leaves_its_input_alone():
    boxes, scores = random_boxes(1)
    before = boxes.clone(), scores.clone()
    soft_nms(boxes, scores)
    assert torch.equal(boxes, before[0]) and torch.equal(scores, before[1])


def test_nms_match_groups_by_hand():
    dets = torch.tensor(
        [
            [0.0, 0, 10, 10, 0.5],
            [20, 20, 30, 30, 0.8],
            [0, 0, 10, 9, 0.9],
            [0, 0, 10, 8, 0.6],
            [20, 20, 30, 29, 0.1],
            [50, 50, 50, 50, 0.2],
        ]
    )
    groups = [group.tolist() for group in nms_match(dets, 0.7)]
    assert groups == [[2, 3, 0], [1, 4], [5]]


def test_nothing_in_nothing_out():
    boxes, scores = torch.zeros(0, 4), torch.zeros(0)
    for dets, inds in (nms(boxes, scores, 0.5), soft_nms(boxes, scores)):
        assert dets.shape == (0, 5) and inds.shape == (0,)
        assert inds.dtype == torch.int64
    assert nms_match(torch.zeros(0, 5), 0.5) == []


@pytest.mark.parametrize('kind', ['nms', 'soft_nms'])
@pytest.mark.parametrize('split_thr', [10000, 10])
def test_batched_nms_is_nms_per_class(kind, split_thr):
    """As MMDetection's heads call it, at once and class by class."""
    boxes, scores = random_boxes(90)
    classes = torch.arange(90) % 3
    dets, keep = batched_nms(
        boxes,
        scores,
        classes,
        dict(type=kind, iou_threshold=0.5, split_thr=split_thr),
    )
    expected = []
    for k in range(3):
        members = (classes == k).nonzero()[:, 0].tolist()
        part = boxes[members].tolist(), scores[members].tolist()
        if kind == 'nms':
            kept = [(i, part[1][i]) for i in loop_nms(*part, 0.5)]
        else:
            kept = loop_soft_nms(*part, 'linear', 0.5)
        expected += [(members[i], score) for i, score in kept]
    expected.sort(key=lambda pair: -pair[1])
    assert keep.tolist() == [i for i, _ in expected]
    assert torch.equal(dets[:, :4], boxes[keep])
    lowered = torch.tensor([score for _, score in expected])
    torch.testing.assert_close(dets[:, 4], lowered, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('split_thr', [10000, 10])
def test_batched_nms_class_agnostic_and_max_num(split_thr):
    boxes, scores = random_boxes(60)
    agnostic = split_thr > len(boxes)
    classes = torch.arange(60) % 4 if agnostic else torch.zeros(60)
    expected = loop_nms(boxes.tolist(), scores.tolist(), 0.3)
    cfg = dict(type='nms', iou_threshold=0.3, max_num=5, split_thr=split_thr)
    dets, keep = batched_nms(boxes, scores, classes, cfg, class_agnostic=True)
    assert len(expected) > 5
    assert keep.tolist() == expected[:5]
    assert dets.shape == (5, 5)


def test_batched_nms_of_many_boxes():
    """20 000 boxes, of which copies are dropped and nothing else."""
    side = torch.arange(100.0) * 10
    grid = torch.cartesian_prod(side, side)
    boxes = torch.cat((grid, grid + 5), 1).repeat(2, 1)
    scores = torch.linspace(1, 0.1, len(boxes))
    classes = torch.zeros(len(boxes), dtype=torch.long)
    _, keep = batched_nms(
        boxes, scores, classes, dict(type='nms', iou_threshold=0.5)
    )
    assert keep.tolist() == list(range(10_000))
