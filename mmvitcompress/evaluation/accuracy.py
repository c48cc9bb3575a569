"""Top-k accuracy of a classifier."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmvitcompress.errors import ConfigError, DataError
from mmvitcompress.registry import METRICS
from mmvitcompress.utils.checks import check_positive

SAME_CLASSES = 'the data must have the classes that the model was trained for'


def check_targets(
    labels: Tensor, classes: int, remedy: str = SAME_CLASSES
) -> None:
    """Raise DataError, with a remedy, if a label is no class."""
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise DataError(
            f'labels must lie in 0..{classes - 1}, but got '
            f'{wrong[0].item()}: {remedy}'
        )


@METRICS.register_module()
class TopKAccuracy(BaseMetric):
    """Share of the images whose class is among the k best scored, in percent.

    Classes that score alike are ordered by chance, in expectation; an image
    with a logit that is nan or infinite is never classified correctly.

    Args:
        topk: The values of k. Defaults to (1, 5).
        **kwargs: MMEngine's ``collect_device`` and ``prefix``.

    Raises:
        ConfigError: If a k exceeds the number of classes.
    """

    def __init__(self, topk: Sequence[int] = (1, 5), **kwargs):
        super().__init__(**kwargs)
        self.topk = tuple(topk)
        for k in self.topk:
            check_positive('topk', k)

    def process(
        self, data_batch: Sequence[Tensor], data_samples: Sequence[Tensor]
    ) -> None:
        """Note the ranks of the true classes of one batch.

        Args:
            data_batch: Images (B, 3, H, W) and targets (B).
            data_samples: Logits (classes), one for each image.

        Raises:
            DataError: If a target is no class of the model.
        """
        logits = torch.stack(list(data_samples))  # (B, classes)
        if max(self.topk) > logits.shape[1]:
            raise ConfigError(
                f'topk must not exceed the {logits.shape[1]} classes, but got '
                f'{max(self.topk)}'
            )
        targets = torch.as_tensor(data_batch[1])
        check_targets(targets, logits.shape[1])
        targets = targets.to(logits.device)
        true = logits.gather(1, targets[:, None])
        higher, equal = (logits > true).sum(1), (logits == true).sum(1)
        # nothing is above or equal to nan; masked classes may have -inf
        wrong = (logits.isnan() | (logits == torch.inf)).any(1)
        higher[wrong | ~true[:, 0].isfinite()] = logits.shape[1]
        ranks = torch.stack([higher, equal.clamp(min=1)], 1)
        self.results.extend(ranks.tolist())

    def compute_metrics(self, results: list[list[int]]) -> dict[str, float]:
        """``{'top1': …}`` in percent, from how many classes are scored higher
        than each true one, and how many, itself included, just as high."""
        higher, equal = torch.tensor(results, dtype=torch.float64).T
        # the share of orders of the equal ones that put it among the first k
        return {
            f'top{k}': 100 * ((k - higher) / equal).clamp(0, 1).mean().item()
            for k in self.topk
        }
