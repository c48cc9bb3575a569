"""From a training run to the small checkpoint that is its result."""

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from mmvitcompress.arch.base import dense
from mmvitcompress.channels import (
    find_compactors,
    fold,
    relative_difference,
    tensors_of,
    unconverged,
    without,
)
from mmvitcompress.channels.constraints import Constraints
from mmvitcompress.channels.folding import final_masks
from mmvitcompress.checkpoints.file import Checkpoint
from mmvitcompress.checkpoints.heads import to_timm_head
from mmvitcompress.checkpoints.load import load_strict
from mmvitcompress.engine.config import validation_loader
from mmvitcompress.errors import CheckpointError
from mmvitcompress.models import ImageClassifier

BACKBONE = 'backbone.'
FOLDING_ERROR = 1e-10
"""By how much folding may change outputs in float64; 1e-14 is usual."""

ByPart = dict[str, list[Tensor]]
"""Tensors by the part that returned them."""


@dataclass
class Export:
    """A compressed model, and what it took to make it.

    Attributes:
        arch: Its backbone's shape.
        state_dict: A whole model's tensors under the run's keys, or those of
            a backbone or classifier under timm's.
        report: Of builtin types: ``widths`` (Q/K, V,
            MLP) of each block; ``macs`` and ``params`` of the ``dense``
            backbone, of the one ``before`` folding and ``after``;
            ``reduction``; ``unconverged`` channels of each block;
            ``output_shift``, by how much outputs move when all that is masked
            is removed; ``folding_error``, by how much folding itself changes
            them, both as a fraction of the part's largest output;
            ``compared``, the parts whose outputs these are.
    """

    arch: object
    state_dict: dict[str, Tensor]
    report: dict


def real_images(cfg: Config, model: nn.Module, count: int) -> list[Tensor]:
    """The first ``count`` images of the config's validation data, each (1, 3,
    H, W), as the backbone takes them: one by one, as sizes may differ."""
    loader = {**validation_loader(cfg), 'batch_size': 1, 'num_workers': 0}
    loader['persistent_workers'] = False
    images = []
    for batch in islice(Runner.build_dataloader(loader), count):
        images.append(preprocessed(model, batch))
    return images


def preprocessed(model: nn.Module, batch) -> Tensor:
    """Images (B, 3, H, W) of a batch as the backbone takes them."""
    data = model.data_preprocessor(batch, False)
    return data['inputs'] if isinstance(data, dict) else data[0]


def classes_of(checkpoint: Checkpoint) -> dict:
    """What a run's checkpoint notes of its classes, of builtin types, as
    inferencers look for it; {} if it notes nothing."""
    noted = checkpoint.noted('dataset_meta')
    found = {}
    if noted.get('classes'):
        found['classes'] = [str(name) for name in noted['classes']]
    if isinstance(noted.get('palette'), list | tuple):
        colors = noted['palette']
        found['palette'] = [[int(v) for v in color] for color in colors]
    return dict(dataset_meta=found) if found else {}


def last_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights of a run's last step, whose checkpoint holds their average.

    Raises:
        CheckpointError: If it holds no others.
    """
    # EMAHook saves the average as the model, the model as the average
    stored = checkpoint.content.get('ema_state_dict') or {}
    tensors = {
        key.removeprefix('module.'): value
        for key, value in stored.items()
        if key.startswith('module.')
    }
    if not tensors:
        raise CheckpointError(
            f'checkpoint {checkpoint.path!r} holds no weights beside the '
            'model, since its run had no EMAHook: leave --last out'
        )
    return tensors


@torch.no_grad()
def export(
    model: nn.Module,
    build: Callable[[dict], nn.Module],
    images: Sequence[Tensor],
    divisor: int = 8,
    force: bool = False,
    backbone_only: bool = False,
) -> Export:
    """Fold a trained model's compactors and check the result.

    Args:
        model: Has a ``backbone`` of ours, with or without compactors.
        build: Makes the same model for another arch, without compactors.
        images: Batches (B, 3, H, W) as from :func:`real_images`; the folded
            and the unfolded model are compared on them.
        divisor: Kept widths are made multiples of it. Defaults to 8.
        force: Whether to go on if channels have not converged. Defaults to
            False.
        backbone_only: Whether neck and heads are left out. An image
            classifier's head is timm's, and stays. Defaults to False.

    Raises:
        CheckpointError: If they have not, or if the folded model isn't the
            same function.
    """
    stored = model.state_dict()
    model = copy.deepcopy(model).eval().double()
    images = [image.double() for image in images]
    compactors = find_compactors(model.backbone)
    arch, folded = model.backbone.arch, model.backbone.state_dict()
    left, shift, kept = [], 0.0, []
    reference = _outputs(model, images)
    if compactors:
        left = [sum(block) for block in unconverged(compactors)]
        if sum(left) and not force:
            raise _not_converged(model, images, compactors, left, reference)
        kept = final_masks(compactors, divisor, Constraints.of(arch))
        before = reference
        with without(compactors, kept):
            reference = _outputs(model, images)
        shift = _difference(before, reference)
        arch, folded = fold(model.backbone, divisor)
    folded = {f'{BACKBONE}{key}': value for key, value in folded.items()}
    rest = {k: v for k, v in stored.items() if not k.startswith(BACKBONE)}
    small = build(arch.to_dict()).eval().double()
    load_strict(small, {**folded, **rest}, 'of the folded model')
    error = _difference(reference, _outputs(small, images))
    if not error <= FOLDING_ERROR:
        raise CheckpointError(
            'the folded model is not the same function as the trained one: '
            f'outputs differ by {error:.2g} in float64; please report it'
        )
    report = _report(model.backbone.arch, arch, getattr(model, 'head', None))
    report.update(
        unconverged=left,
        output_shift=shift,
        folding_error=error,
        compared=[*reference],
    )
    folded = {
        # rope_index is new, and of whole numbers
        key: value.to(stored.get(key, value).dtype)
        for key, value in folded.items()
    }
    if isinstance(model, ImageClassifier):
        return Export(
            arch, to_timm_head(_unprefixed({**folded, **rest})), report
        )
    if backbone_only or not rest:
        return Export(arch, _unprefixed(folded), report)
    return Export(arch, {**folded, **rest}, report)


def _unprefixed(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(BACKBONE): v for k, v in state_dict.items()}


def _not_converged(model, images, compactors, left, before) -> CheckpointError:
    demands = Constraints.of(model.backbone.arch)
    masked = final_masks(compactors, 1, demands)
    with without(compactors, masked):
        moved = _difference(before, _outputs(model, images))
    return CheckpointError(
        f'{sum(left)} masked channels have not become zero (per block: '
        f'{left}); removing them moves outputs by {moved:.2g} of the largest '
        'value. Train longer after the target is reached, or with a larger '
        'learning rate for the compactors; where weights are averaged '
        "(EMAHook), --last takes the run's last ones; --force exports all "
        'the same'
    )


def _outputs(model: nn.Module, images: Sequence[Tensor]) -> ByPart:
    """What backbone and neck return, and the logits of a segmentor or a
    classifier; a detector's heads choose among regions, which rounding may
    change."""
    found = defaultdict(list)

    def note(name: str, output) -> None:
        found[name] += tensors_of(output)

    handles = [
        part.register_forward_hook(lambda *args, n=name: note(n, args[2]))
        for name in ('backbone', 'neck')
        if (part := getattr(model, name, None)) is not None
    ]
    try:
        for image in images:
            if hasattr(model, 'encode_decode'):
                size = tuple(image.shape[2:])
                meta = dict.fromkeys(('img_shape', 'pad_shape'), size)
                note('logits', model.encode_decode(image, [meta]))
            elif hasattr(model, 'extract_feat'):
                model.extract_feat(image)
            elif isinstance(model, ImageClassifier):
                note('logits', model(image))
            else:
                model.backbone(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _difference(reference: ByPart, other: ByPart) -> float:
    return max(
        relative_difference(reference[name], other[name]) for name in reference
    )


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
