"""Masks in the COCO annotation format, written without pycocotools."""

import numpy as np


def encode_rle(mask: np.ndarray) -> dict:
    """COCO's uncompressed run-length encoding of a mask.

    Args:
        mask: bool array of shape (H, W).

    Returns:
        ``size`` (H, W) and ``counts``: lengths, in pixels, of the runs of
        zeros and ones in turn, column by column and beginning with zeros.
    """
    pixels = mask.ravel(order='F').astype(np.int8)
    starts = np.flatnonzero(np.diff(pixels, prepend=0))
    counts = np.diff(starts, prepend=0, append=pixels.size)
    return {
        'size': [int(side) for side in mask.shape],
        'counts': [int(count) for count in counts],
    }


def mask_box(mask: np.ndarray) -> list[int]:
    """The smallest box [x, y, width, height], in pixels, around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    width, height = int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top
    return [left, top, width, height]


def coco_annotation(
    index: int, image_id: int, category_id: int, mask: np.ndarray, **extra
) -> dict:
    """One entry of a COCO JSON's ``annotations``.

    Args:
        index: unique id of the annotation, from 1.
        image_id: id of its image.
        category_id: id of its category.
        mask: visible pixels, bool of shape (H, W), at least one of them set.
        **extra: further keys to store.
    """
    return {
        'id': index,
        'image_id': image_id,
        'category_id': category_id,
        'bbox': mask_box(mask),
        'area': int(mask.sum()),
        'iscrowd': 0,
        'segmentation': encode_rle(mask),
        **extra,
    }
