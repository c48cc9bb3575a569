"""Nearest neighbours: what frozen features are worth, without training."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.classifier import class_tokens


@torch.inference_mode()
def collect_features(
    model: nn.Module, batches: Iterable, pool: str = 'token'
) -> tuple[Tensor, Tensor]:
    """Features of all images of a loader, of length 1.

    Args:
        model: An ``ImageClassifier`` in evaluation mode; its backbone's last
            output counts.
        batches: Of images and their classes.
        pool: 'token' ([CLS]) or 'avg' of the patch tokens. Defaults to
            'token'.

    Returns:
        Features (N, D) and labels (N), both on the CPU.
    """
    prefix = model.backbone.arch.num_prefix_tokens
    features, labels = [], []
    for batch in batches:
        data = model.data_preprocessor(batch)
        images, targets = data.values() if isinstance(data, dict) else data
        tokens = model.backbone(images)[-1]
        (pooled,) = class_tokens(tokens, prefix, pool=pool)
        features.append(F.normalize(pooled.float(), dim=1).cpu())
        labels.append(targets.cpu())
    return torch.cat(features), torch.cat(labels)


def classify_by_neighbours(
    known: Tensor,
    labels: Tensor,
    queries: Tensor,
    k: int = 10,
    temperature: float = 0.07,
) -> Tensor:
    """Classes (M) of queries (M, D) by votes of their ``k`` most similar.

    A neighbour's vote weighs exp(cosine / temperature), as in DINO (Caron et
    al., ICCV 2021, Section 4).

    Args:
        known: Features (N, D) of length 1.
        labels: Their classes (N).
        queries: Features (M, D) of length 1.
        k: Neighbours that vote. Defaults to 10.
        temperature: The smaller, the more the nearest counts. Defaults to
            0.07.

    Raises:
        ConfigError: If there are fewer than ``k`` known features.
    """
    if not 1 <= k <= len(known):
        raise ConfigError(
            f'k must lie in 1..{len(known)}, the number of known images, but '
            f'got {k}'
        )
    predicted = []
    for chunk in queries.split(1024):  # (1024, N) similarities at a time
        similar, at = (chunk @ known.T).topk(k)
        votes = similar.new_zeros(len(chunk), int(labels.max()) + 1)
        votes.scatter_add_(1, labels[at], (similar / temperature).exp())
        predicted.append(votes.argmax(1))
    return torch.cat(predicted)
