"""Non-maximum suppression: hard, soft and grouped.

Boxes are ``(x1, y1, x2, y2)`` in pixels; with ``offset=1`` a box covers its
last pixel, so that its width is ``x2 - x1 + 1``.
"""

import numpy as np
import torch
import torchvision
from torch import Tensor

# soft-NMS methods, as MMCV numbers them
NAIVE, LINEAR, GAUSSIAN = range(3)


def nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int
) -> Tensor:
    """Drop every box that overlaps a better one by more than a threshold.

    Half-precision input is compared in float32: in float16, the area of a
    300 × 300 box is infinite.

    Args:
        boxes: Boxes of shape ``(N, 4)``, on any device.
        scores: Their scores of shape ``(N,)``.
        iou_threshold: Largest IoU of two boxes that are both kept.
        offset: 0 or 1, see the module's docstring.

    Returns:
        Indices of the kept boxes, best first, int64 of shape ``(K,)``.
    """
    dtype = torch.promote_types(boxes.dtype, torch.float32)
    boxes = boxes.to(dtype)
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    # MMCV compares in the boxes' precision, torchvision's CPU code in double:
    # an IoU of exactly 0.6 would exceed 0.6
    iou_threshold = torch.tensor(iou_threshold, dtype=dtype).item()
    return torchvision.ops.nms(boxes, scores.to(dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes that overlap a better one (Soft-NMS).

    Source: Bodla et al., "Soft-NMS: improving object detection with one line
    of code", ICCV 2017. Of equal scores the first box comes first; a box of
    no area overlaps nothing.

    Args:
        boxes: Boxes of shape ``(N, 4)``, on the CPU.
        scores: Their scores of shape ``(N,)``.
        dets: Output of shape ``(N, 5)``: the K first rows receive the kept
            boxes and their lowered scores, best first.
        iou_threshold: IoU from which ``NAIVE`` and ``LINEAR`` lower a score.
        sigma: Width of the ``GAUSSIAN`` weight ``exp(-IoU² / sigma)``.
        min_score: A box whose lowered score is below it is dropped.
        method: 0 to set overlapping boxes' scores to zero, 1 to multiply
            them by ``1 - IoU``, 2 for the Gaussian weight.
        offset: 0 or 1, see the module's docstring.

    Returns:
        Indices of the kept boxes in the order of ``dets``, int64 ``(K,)``.
    """
    rest = _to_numpy(boxes)
    current = _to_numpy(scores)
    indices = np.arange(len(rest))
    kept, kept_scores = [], []
    while len(indices):
        best = current.argmax()
        kept.append(indices[best])
        kept_scores.append(current[best])
        iou = _iou(rest[best], rest, offset)
        if method == GAUSSIAN:
            weight = np.exp(-(iou * iou) / sigma)
        else:
            lowered = 1 - iou if method == LINEAR else 0
            weight = np.where(iou >= iou_threshold, lowered, 1)
        current = current * weight.astype(current.dtype)
        stay = ~(current < min_score)
        stay[best] = False
        rest, current, indices = rest[stay], current[stay], indices[stay]
    inds = torch.tensor(kept, dtype=torch.int64)
    with torch.no_grad():
        dets[: len(kept), :4] = boxes[inds]
        dets[: len(kept), 4] = torch.tensor(kept_scores, dtype=dets.dtype)
    return inds


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group every suppressed box with the box that suppressed it.

    Args:
        dets: Boxes and scores of shape ``(N, 5)``, on the CPU.
        iou_threshold: IoU from which a box is suppressed.

    Returns:
        One list per kept box, best first: its index, then those of the boxes
        that it suppressed, by descending score.
    """
    array = _to_numpy(dets)
    left = np.argsort(-array[:, 4], kind='stable')
    groups = []
    while len(left):
        iou = _iou(array[left[0], :4], array[left, :4], offset=0)
        matched = iou >= iou_threshold
        matched[0] = True
        groups.append(left[matched].tolist())
        left = left[~matched]
    return groups


def _to_numpy(tensor: Tensor) -> np.ndarray:
    """The tensor's values, in float32 at least."""
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    return tensor.detach().to(dtype).numpy()


def _iou(box: np.ndarray, boxes: np.ndarray, offset: int) -> np.ndarray:
    """IoU of ``(4,)`` with each of ``(N, 4)``; 0 where the union is empty."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    overlap = np.maximum(high - low + offset, 0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(axis=1)
    union = (box[2:] - box[:2] + offset).prod() + areas - overlap
    return np.divide(
        overlap, union, out=np.zeros_like(overlap), where=union > 0
    )
