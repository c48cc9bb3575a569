"""What segmentors say about validation images, and where they differ."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from numpy import ndarray
from PIL import Image
from torch import nn

from mmvitcompress.datasets.palettes import class_palette
from mmvitcompress.engine.config import validation_loader
from mmvitcompress.engine.launch import naming_data_errors
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.checks import check_positive
from mmvitcompress.utils.images import equally_spaced
from mmvitcompress.visualization import base, style
from mmvitcompress.visualization.loading import load_model

BARS = 24
"""Classes that get bars at most; the most frequent ones."""


class Comparison(NamedTuple):
    """Predictions of some models on the same images.

    Attributes:
        classes: Class names by label.
        pictures: RGB images (H, W, 3), uint8, of those to be shown.
        truths: Their labels (H, W).
        predictions: Labels (H, W) by each model's name.
        counts: Of all images evaluated, as of :func:`confusion`, by each
            model's name.
        images: How many images were evaluated.
    """

    classes: tuple[str, ...]
    pictures: list[ndarray]
    truths: list[ndarray]
    predictions: dict[str, list[ndarray]]
    counts: dict[str, ndarray]
    images: int

    @property
    def pixels(self) -> ndarray:
        """How often each class is the truth."""
        return next(iter(self.counts.values())).sum(1)

    def ious(self, name: str) -> ndarray:
        """A model's IoU of each class in percent; NaN for a class that
        neither truth nor model knows."""
        counts = self.counts[name]
        union = counts.sum(0) + counts.sum(1) - counts.diagonal()
        with np.errstate(invalid='ignore'):
            return np.where(union, 100 * counts.diagonal() / union, np.nan)

    def headed(self, name: str, between: str = ': ') -> str:
        """A model's name and its mIoU over the classes that have one."""
        return f'{name}{between}{np.nanmean(self.ious(name)):.1f} % mIoU'


def confusion(truth: ndarray, prediction: ndarray, classes: int) -> ndarray:
    """Pixels (classes, classes) by truth, then by prediction.

    Pixels whose truth is none of the classes (ignored ones) don't count.
    """
    counted = (truth >= 0) & (truth < classes)
    pairs = truth[counted].astype(np.int64) * classes + prediction[counted]
    counts = np.bincount(pairs, minlength=classes**2)
    return counts.reshape(classes, classes)


def differences(
    truth: ndarray, first: ndarray, second: ndarray, classes: int
) -> ndarray:
    """Which of two predictions is right where (H, W): 0 both, 1 only the
    first, 2 only the second, 3 neither; -1 where the truth is ignored."""
    wrong = 2 * (first != truth).astype(int) + (second != truth)
    return np.where((truth >= 0) & (truth < classes), wrong, -1)


@torch.no_grad()
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
        evaluate: Images that IoUs are taken over, at equal distances in the
            data. Defaults to 100.
        show: How many of them are kept for a picture. Defaults to 4.

    Raises:
        ConfigError: If the config is not of mmseg, or a number below 1.
        DataError: If data are missing or damaged.
    """
    check_positive('evaluate', evaluate)
    check_positive('show', show)
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
    labels, counts = {n: [] for n in models}, dict.fromkeys(models, 0)
    compared = Comparison(classes, [], [], labels, counts, len(places))
    for place in places:
        with naming_data_errors():
            sample = dataset[place]
        truth = sample['data_samples'].gt_sem_seg.data[0].numpy()
        truth = truth.astype(np.int64)
        for name, model in models.items():
            # a copy: what tests do to samples must not reach the next model
            batch = [sample['data_samples'].clone()]
            batch = dict(inputs=[sample['inputs']], data_samples=batch)
            (result,) = model.eval().test_step(batch)
            predicted = result.pred_sem_seg.data[0].cpu().numpy()
            counts[name] += confusion(truth, predicted, len(classes))
            if place in shown:
                labels[name].append(predicted)
        if place in shown:
            compared.truths.append(truth)
            with Image.open(sample['data_samples'].img_path) as image:
                compared.pictures.append(np.array(image.convert('RGB')))
    return compared


def numbers_of(comparison: Comparison) -> dict:
    """IoU in percent, of builtin types."""
    models = {}
    for name in comparison.counts:
        ious = comparison.ious(name)
        each = [None if np.isnan(x) else round(x, 2) for x in ious.tolist()]
        mean = round(float(np.nanmean(ious)), 2)
        models[name] = dict(mIoU=mean, IoU=dict(zip(comparison.classes, each)))
    return dict(images=comparison.images, models=models)


def draw_comparison(comparison: Comparison) -> style.Figure:
    """Draw images, truth, two models' predictions, and their differences."""
    names, images = list(comparison.predictions), comparison.pictures
    sizes, columns = [image.shape for image in images], 5
    height = (2.1 * sum(s[0] / s[1] for s in sizes) + 0.6, 2.6)
    size = (2.1 * columns, sum(height) + 0.5)
    figure = style.Figure(figsize=size, layout='constrained')
    upper, lower = figure.subfigures(2, 1, height_ratios=height)
    axes = style.panels(upper, sizes, columns)
    headings = [comparison.headed(name, '\n') for name in names]
    headings = ['image', 'truth', *headings, 'where they differ']
    style.head_panels(axes, [headings] * len(images))
    for axis, image in zip(axes[:, 0], images):
        axis.imshow(image)
    maps = [comparison.truths, *comparison.predictions.values()]
    handles = _draw_labels(axes[:, 1:], maps, comparison.classes)
    look = dict(fontsize=8, title_fontsize=8)
    upper.legend(handles=handles, loc='outside lower left', ncols=5, **look)
    handles = _draw_differences(axes[:, -1], comparison, names)
    look.update(title='where they differ', loc='outside lower right')
    upper.legend(handles=handles, ncols=2, **look)
    _draw_ious(lower.subplots(), comparison)
    figure.suptitle('Segmentations compared', fontsize=11)
    return figure


def _draw_labels(
    axes: ndarray, maps: Sequence[Sequence[ndarray]], classes: Sequence[str]
) -> list[style.Patch]:
    """Fill a column for each of the maps; returns what explains colours."""
    colours = [[c / 255 for c in rgb] for rgb in class_palette(classes)]
    palette = ListedColormap(colours).with_extremes(over='white')  # ignored
    look = dict(cmap=palette, vmin=-0.5, vmax=len(classes) - 0.5)
    seen = set()
    for column, each in zip(axes.T, maps):
        for axis, labels in zip(column, each):
            axis.imshow(labels, interpolation='nearest', **look)
            seen.update(np.unique(labels).tolist())
    known = sorted(seen & set(range(len(classes))))
    handles = [style.swatch(colours[i], classes[i]) for i in known]
    if max(seen) >= len(classes):
        handles.append(style.swatch('white', '(ignored)'))
    return handles


def _draw_differences(
    axes: Sequence[style.Axes], comparison: Comparison, names: Sequence[str]
) -> list[style.Patch]:
    """Fill the last column; returns what explains its colours."""
    meanings = {
        'both right': style.PALE,
        f'only {names[0]} right': style.VERMILLION,
        f'only {names[1]} right': style.BLUE,
        'neither right': style.BLACK,
    }
    palette = ListedColormap(list(meanings.values()))
    palette = palette.with_extremes(under='white')  # ignored
    first, second = (comparison.predictions[name] for name in names)
    look = dict(cmap=palette, vmin=0, vmax=3, interpolation='nearest')
    for axis, *maps in zip(axes, comparison.truths, first, second):
        axis.imshow(differences(*maps, len(comparison.classes)), **look)
    return [style.swatch(colour, name) for name, colour in meanings.items()]


def _draw_ious(axis: style.Axes, comparison: Comparison) -> None:
    pixels, names = comparison.pixels, list(comparison.counts)
    frequent = np.argsort(-pixels, kind='stable')[:BARS]
    labels = sorted(label for label in frequent if pixels[label])
    places, width = np.arange(len(labels)), 0.4
    colours = (style.VERMILLION, style.BLUE)
    for name, colour, side in zip(names, colours, (-0.5, 0.5)):
        bars = axis.bar(
            places + side * width,
            comparison.ious(name)[labels],
            width=0.92 * width,
            color=colour,
            label=comparison.headed(name),
        )
        if len(labels) <= 12:
            axis.bar_label(bars, fmt='%.1f', fontsize=7, padding=1)
    left_out = np.count_nonzero(pixels) - len(labels)
    more = f'; {left_out} rarer classes not shown' if left_out else ''
    axis.set(
        ylim=(0, 105),
        yticks=range(0, 101, 25),
        ylabel='IoU (%)',
        xlabel=f'{comparison.images} validation images{more}',
    )
    shown = [comparison.classes[label] for label in labels]
    turned = dict(rotation=30, ha='right') if len(labels) > 8 else {}
    axis.set_xticks(places, shown, fontsize=8, **turned)
    axis.legend(fontsize=8, ncols=2, loc='lower right', bbox_to_anchor=(1, 1))
    style.bare(axis)


class Compare(base.Kind):
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
        **base.COMPRESSED,
        '--dense': dict(**base.DENSE['--dense'], required=True),
        '--evaluate': dict(base.NUMBER, default=100, help='images evaluated'),
        '--show': dict(base.NUMBER, default=4, help='images drawn, of these'),
    }

    def view(
        self,
        config,
        checkpoint,
        dense,
        evaluate=100,
        show=4,
        cfg_options=None,
        backbone=None,
    ) -> base.View:
        """Run both segmentors on the validation data of ``config``."""
        cfg, model = load_model(
            config, checkpoint, cfg_options, True, backbone
        )
        _, other = load_model(*dense, cfg_options, whole=True)
        models = {'dense': other, 'compressed': model}
        comparison = compare_segmentors(cfg, models, evaluate, show)
        draw, numbers = draw_comparison, numbers_of(comparison)
        return base.View(lambda rows: draw(comparison), numbers=numbers)
