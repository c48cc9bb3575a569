"""What the evaluators of the configs say, against scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.registry import init_default_scope
from mmseg.registry import METRICS
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    jaccard_score,
    recall_score,
)

BASE = Path(__file__).parents[2] / 'configs/_base_/datasets'


@pytest.mark.parametrize(
    ('name', 'classes'), [('potsdam', 5), ('isaid', 16), ('camvid', 11)]
)
def test_scores(name, classes):
    init_default_scope('mmseg')
    cfg = Config.fromfile(BASE / f'{name}.py')
    metric = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = dict(classes=[str(i) for i in range(classes)])
    rng = np.random.default_rng(classes)
    truths, predictions = [], []
    for size in ((20, 30), (17, 9), (40, 40)):
        truth = rng.integers(0, classes, size)
        lucky = rng.random(size) < 0.6
        guess = rng.integers(0, classes, size)
        prediction = np.where(lucky, truth, guess)
        truth[rng.random(size) < 0.1] = 255
        sample = dict(
            gt_sem_seg=dict(data=torch.from_numpy(truth)[None]),
            pred_sem_seg=dict(data=torch.from_numpy(prediction)[None]),
        )
        metric.process({}, [sample])
        truths.append(truth[truth != 255])
        predictions.append(prediction[truth != 255])
    scores = metric.evaluate(3)

    truth, prediction = np.concatenate(truths), np.concatenate(predictions)
    expected = dict(
        aAcc=accuracy_score(truth, prediction),
        mIoU=jaccard_score(truth, prediction, average='macro'),
        mAcc=recall_score(truth, prediction, average='macro'),
    )
    if name == 'potsdam':
        expected['mFscore'] = f1_score(truth, prediction, average='macro')
    for key, value in expected.items():
        assert scores[key] == pytest.approx(100 * value, abs=0.006), key
