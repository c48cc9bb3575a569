"""Predictions compared: counts by hand, and against MMSegmentation."""

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric

from mmvitcompress.utils.images import equally_spaced
from mmvitcompress.visualization import compare, draw_comparison
from mmvitcompress.visualization.compare import (
    Comparison,
    confusion,
    differences,
    numbers_of,
)

TRUTH = np.array([[0, 0, 1], [1, 2, 255]])
FIRST = np.array([[0, 1, 1], [1, 0, 0]])
SECOND = np.array([[0, 0, 1], [0, 0, 2]])


def test_confusion_by_hand():
    counts = confusion(TRUTH, FIRST, 4)
    assert counts.tolist() == [
        [1, 1, 0, 0],
        [0, 2, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    comparison = Comparison((), [], [], {}, {'a': counts}, 1)
    np.testing.assert_allclose(
        comparison.ious('a'), [100 / 3, 200 / 3, 0, np.nan]
    )


def test_ious_are_those_of_mmseg():
    rng = np.random.default_rng(0)
    truth, labels = rng.integers(0, 7, (2, 40, 50))
    truth[:3] = 255
    areas = IoUMetric.intersect_and_union(
        torch.from_numpy(labels), torch.from_numpy(truth), 7, 255
    )
    expected = (areas[0] / areas[1]).numpy()
    counts = {'a': confusion(truth, labels, 7)}
    ours = Comparison((), [], [], {}, counts, 1).ious('a')
    np.testing.assert_allclose(ours, 100 * expected, rtol=1e-6)


def test_differences_by_hand():
    # both, only the second, both; only the first, neither, ignored
    assert differences(TRUTH, FIRST, SECOND, 3).tolist() == [
        [0, 2, 0],
        [1, 3, -1],
    ]


def test_places():
    assert equally_spaced(10, 4) == [0, 2, 5, 7]
    assert equally_spaced(3, 9) == [0, 1, 2]


@pytest.fixture
def comparison():
    counts = {
        name: confusion(TRUTH, labels, 3)
        for name, labels in (('dense', FIRST), ('compressed', SECOND))
    }
    return Comparison(
        classes=('wall', 'sky', 'tree'),
        pictures=[np.zeros((2, 3, 3), np.uint8)],
        truths=[TRUTH],
        predictions={'dense': [FIRST], 'compressed': [SECOND]},
        counts=counts,
        images=1,
    )


def test_figures_are_in_percent(comparison):
    models = numbers_of(comparison)['models']
    assert models['dense']['IoU'] == {'wall': 33.33, 'sky': 66.67, 'tree': 0}
    assert models['dense']['mIoU'] == 33.33
    assert models['compressed']['mIoU'] == 33.33


def test_bars_and_headings(comparison):
    figure = draw_comparison(comparison)
    *panels, bars = figure.axes
    headings = [axis.get_title() for axis in panels]
    assert headings == [
        'image',
        'truth',
        'dense\n33.3 % mIoU',
        'compressed\n33.3 % mIoU',
        'where they differ',
    ]
    heights = [bar.get_height() for bar in bars.patches]
    assert heights[:3] == pytest.approx([100 / 3, 200 / 3, 0])
    labels = [text.get_text() for text in bars.get_xticklabels()]
    assert labels == ['wall', 'sky', 'tree']


def test_rare_classes_have_no_bars(comparison, monkeypatch):
    monkeypatch.setattr(compare, 'BARS', 2)
    bars = draw_comparison(comparison).axes[-1]
    labels = [text.get_text() for text in bars.get_xticklabels()]
    assert labels == ['wall', 'sky']
    assert '1 rarer classes not shown' in bars.get_xlabel()


def test_classes_look_like_no_mark(comparison):
    figure = draw_comparison(comparison)
    truth, marks = figure.axes[1].images[0], figure.axes[4].images[0]
    colours = truth.to_rgba(np.arange(3))[:, :3].tolist()
    assert len(set(map(tuple, colours))) == 3
    for mark in (*marks.to_rgba([-1, 0, 3])[:, :3].tolist(), [0, 0, 0]):
        assert mark not in colours
    # what is ignored is white wherever it is seen
    for image in (truth, marks):
        pixels = image.to_rgba(image.get_array())
        assert pixels[1, 2].tolist() == [1, 1, 1, 1]
    legend = figure.subfigs[0].legends[0]
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ['wall', 'sky', 'tree', '(ignored)']
