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
    info = getattr(dataset, 'metainfo', None) or {}
    count = len(info.get('classes') or ())
    for name, module in model.named_modules():
        known = getattr(module, 'num_classes', None)
        # regions are of objects of any class, and so may masks be
        agnostic = 'rpn' in name or getattr(module, 'class_agnostic', False)
        few = isinstance(known, int) and known < count
        if few and 'head' in name and not agnostic:
            raise ConfigError(
                f'model.{name}.num_classes must be at least {count}, the '
                f'number of classes in the data, but got {known}'
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
