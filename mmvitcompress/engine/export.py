"""From a training run to the small checkpoint that is its result."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from mmvitcompress.arch.base import dense
from mmvitcompress.channels import (
    column_norms,
    find_compactors,
    fold,
    kept_channels,
    output_shift,
    relative_difference,
    removable,
    tensors_of,
    unconverged,
    without,
)
from mmvitcompress.checkpoints.heads import to_timm_head
from mmvitcompress.checkpoints.load import load_strict
from mmvitcompress.engine.config import validation_loader
from mmvitcompress.errors import CheckpointError
from mmvitcompress.models import ImageClassifier

FOLDING_ERROR = 1e-10
"""By how much folding may change outputs in float64; 1e-14 is usual."""


@dataclass
class Export:
    """A compressed backbone, and what it took to make it.

    Attributes:
        arch: Its shape.
        state_dict: Tensors under timm's keys, classifier included.
        report: Of builtin types: ``widths`` (Q/K, V,
            MLP) of each block; ``macs`` and ``params`` of the ``dense`` model,
            of the one ``before`` folding and ``after``; ``reduction``;
            ``unconverged`` channels of each block; ``output_shift``, by how
            much the output moves when all that is masked is removed;
            ``folding_error``, by how much folding itself changes it, both as
            a fraction of the largest output.
    """

    arch: object
    state_dict: dict[str, Tensor]
    report: dict


def real_images(cfg: Config, count: int) -> tuple:
    """The first batch of the config's validation data, of ``count`` images."""
    loader = {**validation_loader(cfg), 'batch_size': count, 'num_workers': 0}
    loader['persistent_workers'] = False
    return next(iter(Runner.build_dataloader(loader)))


def preprocessed(model: nn.Module, batch) -> Tensor:
    """Images (B, 3, H, W) of a batch as the backbone takes them."""
    data = model.data_preprocessor(batch, False)
    return data['inputs'] if isinstance(data, dict) else data[0]


@torch.no_grad()
def export(
    model: nn.Module,
    build: Callable[[dict], nn.Module],
    images: Tensor,
    divisor: int = 8,
    force: bool = False,
) -> Export:
    """Fold a trained model's compactors and check the result.

    Args:
        model: Has a ``backbone`` of ours, with or without compactors, and
            maybe the ``head`` of an image classifier.
        build: Makes the same model for another arch, without compactors.
        images: (B, 3, H, W), as the backbone takes them; the folded and the
            unfolded backbone are compared on them.
        divisor: Kept widths are made multiples of it. Defaults to 8.
        force: Whether to go on if channels have not converged. Defaults to
            False.

    Raises:
        CheckpointError: If they have not, or if the folded backbone isn't
            the same function.
    """
    backbone = copy.deepcopy(model.backbone).eval().double()
    images = images.double()
    compactors = find_compactors(backbone)
    arch, state_dict = backbone.arch, backbone.state_dict()
    left, shift, kept = [], 0.0, []
    if compactors:
        left = [sum(block) for block in unconverged(compactors)]
        if sum(left) and not force:
            moved = output_shift(backbone, images)
            raise CheckpointError(
                f'{sum(left)} masked channels have not become zero (per '
                f'block: {left}); removing them moves the output by '
                f'{moved:.2g} of its largest value. Train longer after the '
                'target is reached, or with a larger learning rate for the '
                'compactors; --force exports all the same'
            )
        shift = output_shift(backbone, images, divisor)
        kept = removable(
            kept_channels(compactors), column_norms(compactors), divisor
        )
        arch, state_dict = fold(backbone, divisor)
    folded = build(arch.to_dict()).backbone.eval().double()
    load_strict(folded, state_dict, 'of the folded backbone')
    with without(compactors, kept):
        reference = list(tensors_of(backbone(images)))
    error = relative_difference(reference, list(tensors_of(folded(images))))
    if not error <= FOLDING_ERROR:
        raise CheckpointError(
            'the folded backbone is not the same function as the trained '
            f'one: outputs differ by {error:.2g} in float64; please report it'
        )
    stored = model.backbone.state_dict()
    state_dict = {
        key: value.to(stored[key].dtype) for key, value in state_dict.items()
    }
    head = {}
    if isinstance(model, ImageClassifier):
        head = {f'head.{k}': v for k, v in model.head.state_dict().items()}
    report = _report(backbone.arch, arch, getattr(model, 'head', None))
    report.update(unconverged=left, output_shift=shift, folding_error=error)
    return Export(arch, to_timm_head({**state_dict, **head}), report)


def _report(before, after, head: nn.Module | None) -> dict:
    classes = getattr(head, 'num_classes', 0)
    archs = dict(dense=dense(before), before=before, after=after)
    macs = {k: arch.macs(num_classes=classes) for k, arch in archs.items()}
    return dict(
        widths_before=_widths(before),
        widths=_widths(after),
        macs=macs,
        params={
            k: arch.params(num_classes=classes) for k, arch in archs.items()
        },
        reduction=1 - macs['after'] / macs['dense'],
    )


def _widths(arch) -> list[list[int]]:
    return [list(w) for w in zip(arch.qk_dims, arch.v_dims, arch.mlp_dims)]
