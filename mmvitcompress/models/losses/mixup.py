"""Mixup and cutmix on whole batches, on the device."""

from typing import Literal

from mmengine.model import BaseDataPreprocessor
from timm.data.mixup import Mixup, mixup_target
from torch import Tensor

from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import MODELS
from mmvitcompress.utils.checks import (
    check_at_least_zero,
    check_choice,
    check_fraction,
    check_positive,
    is_number,
)


@MODELS.register_module()
class MixupPreprocessor(BaseDataPreprocessor):
    """Moves batches to the device and, in training, mixes them as timm does.

    An image is mixed with that at the same place from the batch's end; the
    targets become soft. What is drawn comes from NumPy's global generator,
    which :class:`~mmvitcompress.engine.hooks.RNGStateHook` keeps in
    checkpoints; all processes draw the same unless
    ``randomness.diff_rank_seed`` is set.

    Args:
        mixup_alpha: Mixup's λ ~ Beta(α, α); 0 switches it off. Defaults to 0.
        cutmix_alpha: The same for cutmix. Defaults to 0.
        prob: Probability that a batch (an image, a pair) is mixed at all.
            Defaults to 1.
        switch_prob: Probability of cutmix where both are on. Defaults to 0.5.
        mode: What shares one λ: 'batch', 'pair' or 'elem'. Defaults to
            'batch'.
        label_smoothing: Share of the target spread over all classes, in
            [0, 1); either here or in the classifier. Defaults to 0.
        num_classes: Number of classes. Defaults to 1000.
        non_blocking: As MMEngine's. Defaults to False.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: Literal['batch', 'pair', 'elem'] = 'batch',
        label_smoothing: float = 0.0,
        num_classes: int = 1000,
        non_blocking: bool = False,
    ):
        super().__init__(non_blocking)
        check_at_least_zero('mixup_alpha', mixup_alpha)
        check_at_least_zero('cutmix_alpha', cutmix_alpha)
        check_fraction('prob', prob)
        check_fraction('switch_prob', switch_prob)
        check_choice('mode', mode, ('batch', 'pair', 'elem'))
        check_smoothing(label_smoothing)
        check_positive('num_classes', num_classes)
        self.label_smoothing = label_smoothing
        self.num_classes = num_classes
        self.mixup = None
        if (mixup_alpha or cutmix_alpha) and prob:
            self.mixup = Mixup(
                mixup_alpha,
                cutmix_alpha,
                prob=prob,
                switch_prob=switch_prob,
                mode=mode,
                label_smoothing=label_smoothing,
                num_classes=num_classes,
            )

    def forward(
        self, data: tuple[Tensor, Tensor] | list, training: bool = False
    ) -> tuple[Tensor, Tensor] | list:
        """Images (B, 3, H, W) and class indices (B), which become soft
        targets (B, classes) in training.

        Raises:
            ConfigError: If images are to be mixed, but their number is odd.
        """
        images, targets = data = self.cast_data(data)
        if not training:
            return data
        if self.mixup is None:
            soft = mixup_target(
                targets, self.num_classes, smoothing=self.label_smoothing
            )
        else:
            check_even(len(images))
            # timm writes into the images, which may still be the loader's
            images, soft = self.mixup(images.clone(), targets)
        return images, soft.to(images.dtype)


def check_even(count: int, what: str = 'a batch') -> None:
    """Refuse to mix an odd number of images.

    Raises:
        ConfigError: If it is odd.
    """
    if count % 2:
        raise ConfigError(
            f'mixup and cutmix mix pairs, but {what} has {count} images: set '
            'an even train_dataloader.batch_size, and drop_last=True'
        )


def check_smoothing(value: float) -> None:
    """Refuse what is no share.

    Raises:
        ConfigError: If it doesn't lie in [0, 1).
    """
    if not is_number(value) or not 0 <= value < 1:
        raise ConfigError(
            f'label_smoothing must lie in [0, 1), but got {value!r}'
        )
