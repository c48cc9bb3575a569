"""How much of a teacher's features a student lacks."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmvitcompress.models.layers.features import feature_error
from mmvitcompress.registry import METRICS


@METRICS.register_module()
class FeatureError(BaseMetric):
    """The relative error of a :class:`~mmvitcompress.models.FeatureDistiller`.

    Definition and names are those of
    :func:`~mmvitcompress.models.layers.features.feature_error`: 0 where the
    student has its teacher's features, 1 where it knows their mean alone.

    Args:
        **kwargs: MMEngine's ``collect_device`` and ``prefix``.
    """

    default_prefix = ''  # the names say it

    def process(
        self, data_batch: dict | None, data_samples: Sequence[Tensor]
    ) -> None:
        """Note the sums (blocks, 4) of each image of one batch.

        Args:
            data_batch: Not looked at.
            data_samples: What the model returned, one for each image.
        """
        self.results.extend(torch.stack([*data_samples]).double().tolist())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The errors, from the sums of all images."""
        return feature_error(torch.tensor(results, dtype=torch.float64))
