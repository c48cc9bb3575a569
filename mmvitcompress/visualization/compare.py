"""What segmentors say about validation images, and where they differ."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from numpy import ndarray
from PIL import Image
from torch import nn

from mmvitcompress.datasets.palettes import class_palette
from mmvitcompress.engine.config import validation_loader
from mmvitcompress.engine.launch import naming_data_errors
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.images import equally_spaced
from mmvitcompress.visualization.base import (
    COMPRESSED,
    DENSE,
    NUMBER,
    Kind,
    View,
)
from mmvitcompress.visualization.loading import load_model
from mmvitcompress.visualization.style import (
    BLACK,
    BLUE,
    PALE,
    SERIES,
    VERMILLION,
    Axes,
    Figure,
    ListedColormap,
    Patch,
    bare,
    head_panels,
)

IGNORED = -1
BARS = 24
"""Classes that get bars at most; the most frequent ones."""


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


def draw_comparison(comparison: Comparison) -> Figure:
    """Draw images, truth, two models' predictions, and their differences.

    Args:
        comparison: Of two models, from :func:`compare_segmentors`; of one,
            there is no column of differences.
    """
    names, images = list(comparison.predictions), comparison.pictures
    two = len(names) == 2
    aspects = [image.shape[0] / image.shape[1] for image in images]
    columns = 2 + len(names) + two
    height = (2.1 * sum(aspects) + 0.6, 2.6)
    size = (2.1 * columns, sum(height) + 0.5)
    figure = Figure(figsize=size, layout='constrained')
    upper, lower = figure.subfigures(2, 1, height_ratios=height)
    axes = upper.subplots(
        *(len(images), columns), squeeze=False, height_ratios=aspects
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    means = [f'{100 * comparison.mean_iou(name):.1f} % mIoU' for name in names]
    headings = [f'{name}\n{mean}' for name, mean in zip(names, means)]
    headings = ['image', 'truth', *headings, 'where they differ'][:columns]
    head_panels(axes, [headings] * len(images))
    for axis, image in zip(axes[:, 0], images):
        axis.imshow(image)
    maps = [comparison.truths, *comparison.predictions.values()]
    handles = _draw_labels(axes[:, 1:], maps, comparison.classes)
    upper.legend(
        handles=handles, loc='outside lower left', ncols=5, fontsize=8
    )
    if two:
        upper.legend(
            handles=_draw_differences(axes[:, -1], comparison, names),
            title='where they differ',
            title_fontsize=8,
            loc='outside lower right',
            ncols=2,
            fontsize=8,
        )
    _draw_ious(lower.subplots(), comparison)
    figure.suptitle('Segmentations compared', fontsize=11)
    return figure


def _draw_labels(
    axes: ndarray, maps: Sequence[Sequence[ndarray]], classes: Sequence[str]
) -> list[Patch]:
    """Fill a column for each of the maps; returns what explains colours."""
    colours = [[c / 255 for c in rgb] for rgb in class_palette(classes)]
    palette = ListedColormap(colours).with_extremes(over='white')  # ignored
    look = dict(cmap=palette, vmin=-0.5, vmax=len(classes) - 0.5)
    seen = set()
    for column, each in zip(axes.T, maps):
        for axis, labels in zip(column, each):
            axis.imshow(labels, interpolation='nearest', **look)
            seen.update(np.unique(labels).tolist())
    handles = [
        Patch(facecolor=colours[i], edgecolor='black', label=classes[i])
        for i in sorted(seen)
        if i < len(classes)
    ]
    if max(seen) >= len(classes):
        handles.append(
            Patch(facecolor='white', edgecolor='black', label='(ignored)')
        )
    return handles


def _draw_differences(
    axes: Sequence[Axes], comparison: Comparison, names: Sequence[str]
) -> list[Patch]:
    """Fill the last column; returns what explains its colours."""
    meanings = {
        'both right': PALE,
        f'only {names[0]} right': VERMILLION,
        f'only {names[1]} right': BLUE,
        'neither right': BLACK,
    }
    palette = ListedColormap(list(meanings.values()))
    palette = palette.with_extremes(under='white')  # ignored
    first, second = (comparison.predictions[name] for name in names)
    look = dict(cmap=palette, vmin=0, vmax=3, interpolation='nearest')
    for axis, *maps in zip(axes, comparison.truths, first, second):
        axis.imshow(differences(*maps, len(comparison.classes)), **look)
    return [
        Patch(facecolor=colour, edgecolor='black', label=meaning)
        for meaning, colour in meanings.items()
    ]


def _draw_ious(axis: Axes, comparison: Comparison) -> None:
    labels = most_frequent(comparison.pixels, BARS)
    width = 0.8 / len(comparison.ious)
    places = np.arange(len(labels))
    colours = (VERMILLION, BLUE, *SERIES[2:])
    for index, (name, ious) in enumerate(comparison.ious.items()):
        offset = (index - (len(comparison.ious) - 1) / 2) * width
        bars = axis.bar(
            places + offset,
            100 * ious[labels],
            width=0.92 * width,
            color=colours[index],
            label=f'{name}: {100 * comparison.mean_iou(name):.1f} % mIoU',
        )
        if len(labels) <= 12:
            axis.bar_label(bars, fmt='%.1f', fontsize=7, padding=1)
    left_out = np.count_nonzero(comparison.pixels) - len(labels)
    more = f'; {left_out} rarer classes not shown' if left_out else ''
    axis.set(
        ylim=(0, 105),
        yticks=range(0, 101, 25),
        ylabel='IoU (%)',
        xlabel=f'{comparison.images} validation images{more}',
    )
    names = [comparison.classes[label] for label in labels]
    turned = dict(rotation=30, ha='right') if len(labels) > 8 else {}
    axis.set_xticks(places, names, fontsize=8, **turned)
    axis.legend(fontsize=8, ncols=2, loc='lower right', bbox_to_anchor=(1, 1))
    bare(axis)


class Compare(Kind):
    """What two segmentors say about validation images."""

    about = (
        'what two segmentors say about validation images, where they differ, '
        'and the IoU of each class'
    )
    caption = (
        'Images, truth and predictions, and where the two models differ; '
        'pixels that are ignored are white. Below, the IoU of each class over '
        'all images evaluated.'
    )
    has_numbers = True

    arguments: ClassVar = {
        **COMPRESSED,
        '--dense': dict(**DENSE['--dense'], required=True),
        '--evaluate': dict(
            **NUMBER, default=100, help='images to take IoUs over'
        ),
        '--show': dict(**NUMBER, default=4, help='how many of them to draw'),
    }

    def view(
        self,
        config: str,
        checkpoint: str,
        dense: Sequence[str],
        evaluate: int = 100,
        show: int = 4,
        cfg_options: dict | None = None,
    ) -> View:
        """Run both segmentors on the validation data of ``config``."""
        cfg, model = load_model(config, checkpoint, cfg_options, whole=True)
        _, other = load_model(*dense, cfg_options, whole=True)
        models = {'dense': other, 'compressed': model}
        comparison = compare_segmentors(cfg, models, evaluate, show)
        numbers = figures(comparison)
        return View(lambda rows: draw_comparison(comparison), numbers=numbers)
