"""What segmentors say about validation images, and where they differ."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from numpy import ndarray
from PIL import Image
from torch import nn

from mmvitcompress.engine.config import validation_loader
from mmvitcompress.engine.launch import naming_data_errors
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.images import equally_spaced

IGNORED = -1


class Comparison(NamedTuple):
    """Predictions of some models on the same images.

    Attributes:
        classes: Class names by label.
        pictures: RGB images (H, W, 3), uint8, of those to be shown.
        truths: Their labels (H, W).
        predictions: Under each model's name the labels (H, W) that it gives.
        ious: Under each model's name the IoU of each class over all images
            evaluated, 0..1; NaN for a class that neither truth nor model
            knows.
        pixels: How often each class is the truth, in pixels.
        images: How many images were evaluated.
    """

    classes: tuple[str, ...]
    pictures: list[ndarray]
    truths: list[ndarray]
    predictions: dict[str, list[ndarray]]
    ious: dict[str, ndarray]
    pixels: ndarray
    images: int

    def mean_iou(self, name: str) -> float:
        """mIoU of a model, 0..1, over the classes that have one."""
        return float(np.nanmean(self.ious[name]))


def confusion(truth: ndarray, prediction: ndarray, classes: int) -> ndarray:
    """Pixels (classes, classes) by truth, then by prediction.

    Pixels whose truth is none of the classes (ignored ones) don't count.
    """
    counted = (truth >= 0) & (truth < classes)
    pairs = truth[counted].astype(np.int64) * classes + prediction[counted]
    counts = np.bincount(pairs, minlength=classes**2)
    return counts.reshape(classes, classes)


def ious_of(counts: ndarray) -> ndarray:
    """Intersection over union of each class; NaN if there is no union."""
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    with np.errstate(invalid='ignore'):
        return np.where(union > 0, counts.diagonal() / union, np.nan)


def differences(
    truth: ndarray, first: ndarray, second: ndarray, classes: int
) -> ndarray:
    """Which of two predictions is right where.

    Returns:
        (H, W): 0 both, 1 only the first, 2 only the second, 3 neither,
        -1 where the truth is ignored.
    """
    wrong = 2 * (first != truth).astype(int) + (second != truth)
    # both 0, second wrong 1, first wrong 2, neither 3
    return np.where((truth >= 0) & (truth < classes), wrong, IGNORED)


def compare_segmentors(
    config: Config,
    models: Mapping[str, nn.Module],
    evaluate: int = 100,
    show: int = 4,
) -> Comparison:
    """Run segmentors on validation images.

    Args:
        config: Of one of them; its validation data are taken.
        models: mmseg segmentors under their names, with weights.
        evaluate: Images at equal distances over the data that IoUs are taken
            over. Defaults to 100.
        show: How many of them are kept for a picture. Defaults to 4.

    Raises:
        ConfigError: If the config is not one of mmseg, or a number is below
            1.
        DataError: If data are missing or damaged.
    """
    for name, value in (('evaluate', evaluate), ('show', show)):
        if value < 1:
            raise ConfigError(f'{name} must be at least 1, but got {value}')
    if config.get('default_scope') != 'mmseg':
        raise ConfigError(
            'predictions are compared for segmentation, but the config is of '
            f'{config.get("default_scope")!r}: give one of mmseg'
        )
    init_default_scope('mmseg')
    with naming_data_errors():
        dataset = DATASETS.build(validation_loader(config)['dataset'])
    classes = tuple(dataset.metainfo['classes'])
    places = equally_spaced(len(dataset), evaluate)
    shown = {places[i] for i in equally_spaced(len(places), show)}
    counts = {name: 0 for name in models}
    result = Comparison(
        classes, [], [], {name: [] for name in models}, {}, 0, len(places)
    )
    for place in places:
        with naming_data_errors():
            sample = dataset[place]
        batch = {key: [sample[key]] for key in ('inputs', 'data_samples')}
        truth = sample['data_samples'].gt_sem_seg.data[0].numpy()
        truth = truth.astype(np.int64)
        for name, model in models.items():
            labels = predicted_labels(model, batch)
            counts[name] += confusion(truth, labels, len(classes))
            if place in shown:
                result.predictions[name].append(labels)
        if place in shown:
            result.truths.append(truth)
            with Image.open(sample['data_samples'].img_path) as image:
                result.pictures.append(np.array(image.convert('RGB')))
    pixels = next(iter(counts.values())).sum(1)
    ious = {name: ious_of(count) for name, count in counts.items()}
    return result._replace(ious=ious, pixels=pixels)


@torch.no_grad()
def predicted_labels(model: nn.Module, batch: Mapping) -> ndarray:
    """Labels (H, W) that a segmentor gives to the one image of a batch."""
    # a copy: what tests do to samples must not reach the next model
    batch = {key: list(values) for key, values in batch.items()}
    batch['data_samples'] = [each.clone() for each in batch['data_samples']]
    (result,) = model.eval().test_step(batch)
    return result.pred_sem_seg.data[0].cpu().numpy()


def figures(comparison: Comparison) -> dict:
    """IoU in percent, of builtin types."""
    return {
        'images': comparison.images,
        'models': {
            name: {
                'mIoU': round(100 * comparison.mean_iou(name), 2),
                'IoU': {
                    label: None if np.isnan(iou) else round(100 * iou, 2)
                    for label, iou in zip(comparison.classes, ious.tolist())
                },
            }
            for name, ious in comparison.ious.items()
        },
    }


def most_frequent(pixels: Sequence[int], count: int) -> list[int]:
    """Labels of the ``count`` most frequent classes, in the order of labels;
    without those that don't occur."""
    order = np.argsort(-np.asarray(pixels), kind='stable')[:count]
    return sorted(int(label) for label in order if pixels[label])
