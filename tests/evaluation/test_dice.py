"""Dice coefficients, against scikit-learn's F1, which is the same number."""

import numpy as np
import pytest
import torch
from mmengine.registry import METRICS as ROOT
from mmseg.registry import METRICS as MMSEG
from sklearn.metrics import f1_score
from torch import distributed, multiprocessing

from mmvitcompress.errors import ConfigError, DataError
from mmvitcompress.evaluation import DiceMetric

CLASSES = ('background', 'aorta', 'liver', 'spleen')


def slices(rng, cases, folder='data/val', classes=4, size=6):
    """Predictions and truths of some slices of each case."""
    for case in cases:
        for number in range(rng.integers(1, 5)):
            yield (
                f'{folder}/{case}_slice{number:03}.png',
                rng.integers(0, classes, (size, size)),
                rng.integers(0, classes, (size, size)),
            )


def sample(path, predicted, truth):
    """As mmseg's evaluators get it."""
    return dict(
        img_path=path,
        pred_sem_seg=dict(data=torch.as_tensor(predicted)[None]),
        gt_sem_seg=dict(data=torch.as_tensor(truth)[None]),
    )


def evaluate(data, classes=CLASSES, **kwargs):
    metric = DiceMetric(**kwargs)
    metric.dataset_meta = dict(classes=classes)
    for item in data:
        metric.process({}, [sample(*item)])
    return metric.evaluate(len(data))


def f1(predicted, truth, classes=4):
    labels = range(1, classes)
    return 100 * f1_score(
        *(truth.ravel(), predicted.ravel()), labels=labels, average=None
    )


@pytest.mark.parametrize('seed', range(3))
def test_volumes_equal_f1_of_their_stacked_slices(seed):
    rng = np.random.default_rng(seed)
    data = list(slices(rng, ['case0001', 'case0002', 'case0008']))
    expected = []
    for case in ('case0001', 'case0002', 'case0008'):
        mine = [item for item in data if case in item[0]]
        expected.append(
            f1(
                np.stack([p for _, p, _ in mine]),
                np.stack([t for *_, t in mine]),
            )
        )
    expected = np.stack(expected).mean(0)
    # the order of slices is no matter
    found = evaluate([data[i] for i in rng.permutation(len(data))])
    assert found['mDice'] == pytest.approx(expected.mean(), rel=1e-12)
    for name, value in zip(CLASSES[1:], expected):
        assert found[f'Dice.{name}'] == pytest.approx(value, rel=1e-12)


def test_images_count_alone_and_by_folder():
    rng = np.random.default_rng(5)
    data = list(slices(rng, 'abc', 'test/kvasir', 2))
    data += list(slices(rng, 'de', 'test/etis', 2))
    each = np.array([f1(p, t, 2)[0] for _, p, t in data])
    found = evaluate(
        data, classes=('background', 'polyp'), level='image', subsets=True
    )
    kvasir = np.array(['kvasir' in path for path, *_ in data])
    assert found['mDice'] == pytest.approx(each.mean())
    assert found['mDice.kvasir'] == pytest.approx(each[kvasir].mean())
    assert found['mDice.etis'] == pytest.approx(each[~kvasir].mean())
    means = each[kvasir].mean(), each[~kvasir].mean()
    assert found['mDice.subsets'] == pytest.approx(np.mean(means))


def test_one_volume_by_hand():
    # class 1: 1 of 2 true and 3 predicted pixels; class 2: all 2; 3: none
    truth = np.array([[1, 1, 2, 2], [0, 0, 0, 0]])
    predicted = np.array([[1, 0, 2, 2], [1, 1, 0, 0]])
    found = evaluate([('case1_slice000.png', predicted, truth)])
    assert found['Dice.aorta'] == pytest.approx(100 * 2 * 1 / (2 + 3))
    assert found['Dice.liver'] == 100
    assert np.isnan(found['Dice.spleen'])
    assert found['mDice'] == pytest.approx((40 + 100) / 2)


def test_missing_organs_are_skipped_or_counted_as_published():
    empty, full = np.zeros((2, 2), int), np.full((2, 2), 1)
    data = [
        ('a_slice0.png', full, full),  # found
        ('b_slice0.png', empty, empty),  # not there, not predicted
        ('c_slice0.png', full, empty),  # not there, but predicted
    ]
    classes = CLASSES[:2]
    assert evaluate(data, classes)['mDice'] == 100
    published = evaluate(data, classes, absent='transunet')
    assert published['mDice'] == pytest.approx(100 * (1 + 0 + 1) / 3)


def test_ignored_pixels_do_not_count():
    truth = np.array([[1, 255, 0]])
    predicted = np.array([[1, 1, 0]])
    found = evaluate([('a_slice0.png', predicted, truth)], CLASSES[:2])
    assert found['mDice'] == 100


def test_an_image_that_comes_twice_counts_once():
    rng = np.random.default_rng(7)
    data = list(slices(rng, ['a', 'b']))
    assert evaluate([*data, data[0]]) == evaluate(data)


def test_names_without_volume_are_refused():
    zeros = np.zeros((2, 2), int)
    with pytest.raises(DataError, match=r"photo\.png .*level='image'"):
        evaluate([('photo.png', zeros, zeros)])


def test_labels_beyond_the_classes_are_refused():
    zeros = np.zeros((2, 2), int)
    with pytest.raises(DataError, match=r'0\.\.3, but got 7'):
        evaluate([('a_slice0.png', zeros, zeros + 7)])


@pytest.mark.parametrize(
    'wrong', [dict(level='slice'), dict(absent='one'), dict(case_pattern='x')]
)
def test_wrong_arguments_are_named(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=f"{name} must .*'{value}'"):
        DiceMetric(**wrong)


def test_found_by_mmseg_too():
    assert ROOT.get('mmvitcompress.DiceMetric') is DiceMetric
    assert MMSEG.get('mmvitcompress.DiceMetric') is DiceMetric


def shard(rank, folder):
    """Evaluate every second image of five; the last is padded as samplers
    do."""
    distributed.init_process_group(
        'gloo', f'file://{folder}/store', rank=rank, world_size=2
    )
    data = five_slices()
    metric = DiceMetric()
    metric.dataset_meta = dict(classes=CLASSES)
    for item in [*data, data[0]][rank::2]:
        metric.process({}, [sample(*item)])
    found = metric.evaluate(len(data))
    torch.save(found, f'{folder}/{rank}.pth')


def five_slices():
    rng = np.random.default_rng(11)
    return [
        (
            f'v/{case}_slice{number:03}.png',
            rng.integers(0, 4, (5, 5)),
            rng.integers(0, 4, (5, 5)),
        )
        for case, count in (('a', 3), ('b', 2))
        for number in range(count)
    ]


def test_two_processes_give_what_one_gives(tmp_path):
    multiprocessing.start_processes(
        shard, (str(tmp_path),), nprocs=2, start_method='fork'
    )
    expected = evaluate(five_slices())
    for rank in (0, 1):
        assert torch.load(tmp_path / f'{rank}.pth') == expected
