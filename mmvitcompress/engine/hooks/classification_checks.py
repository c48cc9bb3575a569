"""What can be known to go wrong with classes before a model trains."""

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mmvitcompress.engine.wrappers import unwrapped
from mmvitcompress.errors import ConfigError, DataError
from mmvitcompress.evaluation.accuracy import check_targets
from mmvitcompress.models.heads.image_classifier import ImageClassifier
from mmvitcompress.models.losses.mixup import MixupPreprocessor, check_even
from mmvitcompress.registry import HOOKS

HEADS = ('decode_head', 'auxiliary_head', 'bbox_head', 'roi_head.bbox_head')
"""Where models keep what tells classes apart; others may only find things."""


@HOOKS.register_module()
class ClassificationCheckHook(Hook):
    """Holds the data to the classes that a model knows.

    Of segmentors and detectors the number of classes is checked alone, in
    tests, too. It also tells data that are read in sequence which epoch it
    is, since they have no sampler that MMEngine could tell.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Check the loaders.

        Raises:
            ConfigError: If a head has too few classes, mixup would meet an odd
                batch, images are normalised otherwise than the teacher
                was told, or data that are read in sequence were told of other
                batches than their loader's, or know no epochs.
            DataError: If training and validation data have other classes.
        """
        model = unwrapped(runner.model)
        self._classes = None
        for loop in filter(None, (runner.train_loop, runner.val_loop)):
            check_heads(model, loop.dataloader.dataset)
        if not isinstance(model, ImageClassifier):
            return
        self._classes = model.num_classes
        loader = runner.train_dataloader
        known = getattr(loader.dataset, 'class_to_idx', None) or {}
        count = max(known.values(), default=-1) + 1
        if count > model.num_classes:
            raise ConfigError(
                f'model.num_classes must be at least {count}, the number of '
                'classes in the training data, but got '
                f'{model.num_classes}'
            )
        if runner.val_loop is not None:
            others = runner.val_dataloader.dataset
            _check_same_classes(known, getattr(others, 'class_to_idx', None))
        _check_normalisation(loader.dataset, model.teacher)
        in_sequence = isinstance(loader.dataset, IterableDataset)
        mixup = model.data_preprocessor
        if isinstance(mixup, MixupPreprocessor) and mixup.mixup is not None:
            _check_batches(loader, in_sequence)
        if in_sequence:
            _check_sequence(loader)
            if hasattr(runner.train_loop, 'dataloader_iterator'):
                raise ConfigError(
                    'data that are read in sequence are shuffled by the '
                    "epoch: set train_cfg.type='EpochBasedTrainLoop'"
                )

    def before_test(self, runner: Runner) -> None:
        """Raise ConfigError if a head has too few classes."""
        check_heads(unwrapped(runner.model), runner.test_dataloader.dataset)

    def before_train_epoch(self, runner: Runner) -> None:
        """Tell data that are read in sequence which epoch it is."""
        data = runner.train_dataloader.dataset
        if isinstance(data, IterableDataset) and hasattr(data, 'set_epoch'):
            data.set_epoch(runner.epoch)

    def before_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Sequence[Tensor] | None = None,
    ) -> None:
        """Check the labels, which are still on the CPU.

        Raises:
            DataError: If one is no class of the model.
        """
        if self._classes is None or data_batch is None:
            return
        targets = data_batch[1]
        if not targets.is_floating_point():  # soft ones
            check_targets(
                targets,
                self._classes,
                'set model.num_classes to the number of classes in the data',
            )


def check_heads(model: nn.Module, dataset: Dataset) -> None:
    """Raise ConfigError if a segmentor's or detector's head has fewer classes
    than a data set."""
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    for place in HEADS:
        head = model
        for name in place.split('.'):
            head = getattr(head, name, None)
        several = isinstance(head, nn.ModuleList)
        for each in head if several else [head]:
            count = getattr(each, 'num_classes', None)
            if count is not None and count < len(classes):
                raise ConfigError(
                    f'model.{place}.num_classes must be at least '
                    f'{len(classes)}, the number of classes in the data, but '
                    f'got {count}'
                )


def _check_same_classes(train: dict[str, int], other: dict | None) -> None:
    # a missing folder shifts all after it
    for name, index in (other or {}).items() if train else ():
        if train.get(name) != index:
            raise DataError(
                f'class {name!r} is {index} in the validation data, but '
                f'{train.get(name, "missing")} in the training data: both '
                'need the same folders, or the same class_map'
            )


def _check_normalisation(data: Dataset, teacher: nn.Module | None) -> None:
    for name in ('mean', 'std'):
        told = getattr(teacher, f'input_{name}', None)
        actual = getattr(data, name, None)
        if None not in (told, actual) and told != actual:
            raise ConfigError(
                f'distillation.teacher.input_{name} must be {actual}, as in '
                f'the transform of the training data, but got {told}'
            )


def _check_batches(loader: DataLoader, in_sequence: bool) -> None:
    if loader.batch_size is None:
        return  # another batch sampler: seen batch by batch
    check_even(loader.batch_size)
    if not loader.drop_last and not in_sequence:
        last = len(loader.sampler) % loader.batch_size
        check_even(last, 'the last batch of an epoch')


def _check_sequence(loader: DataLoader) -> None:
    for name in ('batch_size', 'num_workers'):
        told = getattr(loader.dataset, name, None)
        actual = getattr(loader, name)
        if told is not None and told != actual:
            raise ConfigError(
                f'{name} of the data set ({told}) and of its dataloader '
                f'({actual}) must be equal'
            )
