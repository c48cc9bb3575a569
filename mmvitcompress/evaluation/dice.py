"""Dice coefficients of volumes or images."""

import os.path as osp
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmvitcompress.errors import ConfigError, DataError
from mmvitcompress.evaluation.accuracy import check_targets
from mmvitcompress.registry import METRICS
from mmvitcompress.utils.checks import check_choice


def dice_counts(
    predicted: Tensor, truth: Tensor, classes: int, ignore_index: int = 255
) -> np.ndarray:
    """What Dice coefficients are made of, for each class.

    Args:
        predicted: Class indices, of any shape.
        truth: Class indices or ``ignore_index``, of the same shape.
        classes: Their number.
        ignore_index: Label of pixels that don't count.

    Returns:
        (3, classes): pixels in both, pixels predicted, true pixels.
    """
    counted = truth != ignore_index
    predicted, truth = predicted[counted].long(), truth[counted].long()
    check_targets(truth, classes)
    areas = (truth[predicted == truth], predicted, truth)
    return torch.stack(
        [torch.bincount(area, minlength=classes)[:classes] for area in areas]
    ).numpy(force=True)


def dice_coefficients(counts: np.ndarray, absent: str = 'skip') -> np.ndarray:
    """``2 |P ∩ T| / (|P| + |T|)`` of each class.

    Args:
        counts: (…, 3, classes), see :func:`dice_counts`.
        absent: What classes without a true pixel get: 'skip', nan;
            'transunet', 1 where some pixel was predicted and 0 where none
            was, which is what TransUNet's and CASCADE's tests do.

    Returns:
        (…, classes), in 0..1.
    """
    both, predicted, truth = np.moveaxis(counts.astype(float), -2, 0)
    total = predicted + truth
    dice = 2 * both / np.maximum(total, 1)
    instead = np.nan if absent == 'skip' else (predicted > 0).astype(float)
    return np.where(truth > 0, dice, instead)


@METRICS.register_module()
class DiceMetric(BaseMetric):
    """Mean Dice coefficient, in percent, of volumes or of single images.

    For ``level='volume'`` all slices of a case are counted together: one
    coefficient for each volume and class. For ``level='image'`` every image
    stands for itself. ``Dice.<class>`` is the mean over the volumes (images),
    and ``mDice`` the mean of these over all classes but the first one, which
    is background. ``mmseg``'s own mDice pools all pixels of the data set
    instead, so that large cases count more.

    Args:
        level: 'volume' or 'image'. Defaults to 'volume'.
        case_pattern: Regular expression for file names without suffix, whose
            group 1 is the name of the case. Defaults to what
            ``tools/convert_medical.py`` and mmseg's converter of Synapse
            write: 'case0008_slice042' → 'case0008'.
        absent: What counts where a class has no true pixel; see
            :func:`dice_coefficients`. Defaults to 'skip': such a volume is
            left out of the mean of that class. 'transunet' compares with
            published figures.
        subsets: Whether to report the mean of each folder that images lie in
            as ``mDice.<folder>``, and their mean, each folder counting the
            same, as ``mDice.subsets``. Defaults to False.
        ignore_index: Label of pixels that don't count. Defaults to 255.
        **kwargs: MMEngine's ``collect_device`` and ``prefix``.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        level: str = 'volume',
        case_pattern: str = r'(.+)_slice\d+',
        absent: str = 'skip',
        subsets: bool = False,
        ignore_index: int = 255,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice('level', level, ('volume', 'image'))
        check_choice('absent', absent, ('skip', 'transunet'))
        self.level = level
        self.case_pattern = re.compile(case_pattern)
        if self.case_pattern.groups < 1:
            raise ConfigError(
                'case_pattern must have a group, the name of the case, but '
                f'got {case_pattern!r}'
            )
        self.absent = absent
        self.subsets = subsets
        self.ignore_index = ignore_index

    def _case(self, path: str) -> str:
        """What an image is counted with."""
        if self.level == 'image':
            return path
        folder, name = osp.split(path)
        match = self.case_pattern.fullmatch(osp.splitext(name)[0])
        if match is None:
            raise DataError(
                f'{path} does not name its volume: case_pattern '
                f'{self.case_pattern.pattern!r} must match the file name, or '
                "set level='image'"
            )
        return osp.join(folder, match[1])

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of one batch of mmseg's ``data_samples``.

        Raises:
            DataError: If a label is no class, or if a file name doesn't say
                to which volume it belongs.
        """
        classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            predicted = sample['pred_sem_seg']['data']
            truth = sample['gt_sem_seg']['data'].to(predicted.device)
            counts = dice_counts(predicted, truth, classes, self.ignore_index)
            path = sample['img_path']
            self.results.append((path, self._case(path), counts))

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Means in percent, from the counts of all images.

        Returns:
            ``mDice``, ``Dice.<class>`` and, if asked for, ``mDice.<folder>``;
            nan for a class that no volume has.
        """
        cases: dict[str, np.ndarray] = defaultdict(int)
        # samplers may hand out an image twice to even out processes
        for _, case, counts in {item[0]: item for item in results}.values():
            cases[case] = cases[case] + counts
        counts = np.stack(list(cases.values()))
        # (cases, classes without background)
        dice = 100 * dice_coefficients(counts, self.absent)[:, 1:]
        names = self.dataset_meta['classes'][1:]
        by_class = _mean(dice)
        metrics = {'mDice': _mean(by_class)}
        metrics.update(
            (f'Dice.{name}', value) for name, value in zip(names, by_class)
        )
        if self.subsets:
            metrics.update(self._by_folder(list(cases), dice))
        return {name: float(value) for name, value in metrics.items()}

    @staticmethod
    def _by_folder(cases: list[str], dice: np.ndarray) -> dict[str, float]:
        folders = np.array([osp.basename(osp.dirname(c)) for c in cases])
        means = {
            f'mDice.{folder}': _mean(_mean(dice[folders == folder]))
            for folder in sorted(set(folders.tolist()))
        }
        overall = _mean(np.array(list(means.values())))
        return {**means, 'mDice.subsets': overall}


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not nan; nan where all is."""
    masked = np.ma.masked_invalid(values).mean(0)
    return np.ma.filled(masked, np.nan)
