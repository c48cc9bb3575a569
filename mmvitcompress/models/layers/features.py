"""Features of a net against those of its teacher: targets, losses, error.

The teacher is dense as a rule, the student reduces tokens. Losses measure each
channel in the deviation that it has from patch to patch, and tokens that are
longer than others in their length, so that neither loud channels nor loud
tokens rule. The error is one of tokens normalised by themselves, whatever the
batch.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmvitcompress.tokens import TokenState, restore
from mmvitcompress.tokens.restore import covered_means, covering

Outputs = Sequence[tuple[Tensor, TokenState]]
"""Tokens (B, prefix + n, D) and state of several blocks."""
TERMS = ('map', 'prefix', 'merged')


def precise(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x if x.dtype == torch.float64 else x.float()


def normalised(x: Tensor) -> Tensor:
    """Tokens (…, D) with mean 0 and deviation 1 each, in float32 at least."""
    return F.layer_norm(precise(x), x.shape[-1:])


class Scale(NamedTuple):
    """Mean and deviation (D) of each channel of a teacher's patches."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, patches: Tensor) -> 'Scale':
        """That of a batch (B, N, D); a deviation is at least a hundredth of
        their median."""
        x = precise(patches.detach()).flatten(0, 1)
        deviation = x.std(0, correction=0)
        least = 1e-2 * deviation.median() + torch.finfo(x.dtype).eps
        return cls(x.mean(0), deviation.clamp(min=least))

    def apply(self, x: Tensor, target: Tensor) -> Tensor:
        """Measure tokens (…, D) in deviations, or in the length of their
        target where that is longer."""
        long = (precise(target) - self.mean) / self.deviation
        long = long.square().mean(-1, keepdim=True).sqrt().clamp(min=1)
        return precise(x) / (self.deviation * long)


def full_patches(
    tokens: Tensor, state: TokenState, prefix: int, mode: str = 'nearest'
) -> Tensor:
    """Patch tokens (B, N, D) of the full grid, of (B, prefix + n, D)."""
    x = restore(tokens[:, prefix:], state, mode)
    return x.flatten(2).transpose(1, 2)


def feature_losses(
    student: Outputs,
    teacher: Outputs,
    prefix: int,
    mode: str = 'nearest',
    terms: Collection[str] = TERMS,
) -> dict[str, Tensor]:
    """What a student's features lack: mean squared differences over blocks
    and elements.

    Args:
        student: Its outputs at some blocks.
        teacher: Those of its teacher at the same blocks.
        prefix: How many tokens stand before the patches in both.
        mode: How merges are undone. Defaults to 'nearest'.
        terms: Which of :data:`TERMS` to work out. Defaults to all.

    Returns:
        ``map`` of restored patches, and, if there are fewer tokens than
        patches, ``merged`` of the tokens as they are against the mean of the
        patches that each covers: both as :class:`Scale` measures them, so
        that 1 is the error of knowing the mean alone; ``prefix`` of
        normalised prefix tokens, if there are any, 2·(1 − correlation).
    """
    found: dict[str, list[Tensor]] = {}

    def compare(name: str, x: Tensor, target: Tensor) -> None:
        found.setdefault(name, []).append(F.mse_loss(x, target))

    for (ours, state), (theirs, full) in zip(student, teacher, strict=True):
        patches = precise(full_patches(theirs, full, prefix))
        scale, count = Scale.of(patches), ours.shape[1] - prefix
        pairs = {'map': (full_patches(ours, state, prefix, mode), patches)}
        if 'merged' in terms and count < patches.shape[1]:
            index = covering(state, len(ours), count, ours.device)
            means = covered_means(patches, index, count)
            pairs['merged'] = ours[:, prefix:], means
        for name, (x, target) in pairs.items():
            compare(name, scale.apply(x, target), scale.apply(target, target))
        if prefix:
            heads = (normalised(x[:, :prefix]) for x in (ours, theirs))
            compare('prefix', *heads)
    return {name: torch.stack(each).mean() for name, each in found.items()}


@torch.no_grad()
def error_sums(
    student: Outputs, teacher: Outputs, prefix: int, mode: str = 'nearest'
) -> Tensor:
    """What :func:`feature_error` is made of, for each image.

    Arguments are those of :func:`feature_losses`.

    Returns:
        (B, blocks, 4): of normalised patches Σ|s − t|² and Σ|t − mean of the
        image|², of normalised prefix tokens Σ|s − t|² and Σ|t|².
    """
    blocks = []
    for (ours, state), (theirs, full) in zip(student, teacher, strict=True):
        s = normalised(full_patches(ours, state, prefix, mode))
        t = normalised(full_patches(theirs, full, prefix))
        s_prefix, t_prefix = (
            normalised(x[:, :prefix]) for x in (ours, theirs)
        )
        parts = (s - t, t - t.mean(1, keepdim=True), s_prefix - t_prefix)
        sums = [part.square().sum((1, 2)) for part in (*parts, t_prefix)]
        blocks.append(torch.stack(sums, 1))
    return torch.stack(blocks, 1)


def feature_error(sums: Tensor) -> dict[str, float]:
    """The relative error of features, from the sums of all images.

    Args:
        sums: (images, blocks, 4), see :func:`error_sums`.

    Returns:
        ``feature_error``: Σ|s − t|² / Σ|t − mean of the image|² over images
        and patches, mean over blocks: 0 for the teacher's own features, 1 for
        the right mean and nothing else; the same of each block by its place;
        ``prefix_error``, Σ|s − t|² / Σ|t|², if there are prefix tokens.
    """
    missed, spread, prefix, size = sums.double().sum(0).T
    each = missed / spread
    found = {'feature_error': each.mean().item()}
    found |= {f'feature_error_{i}': e for i, e in enumerate(each.tolist(), 1)}
    if size.min() > 0:
        found['prefix_error'] = (prefix / size).mean().item()
    return found
