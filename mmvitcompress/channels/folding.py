"""From compactors to narrower layers, and whether that is safe.

Folding removes what is masked: W' = W·C[:, kept], b' = b·C[:, kept], and the
rows of W_O and W_2 that V's and W_1's channels fed. The softmax scale stays
1/√d of the original head width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from mmvitcompress.channels.compactors import (
    Compactor,
    Kinds,
    column_norms,
    find_compactors,
    is_compactor,
    kept_channels,
    transformer_blocks,
)
from mmvitcompress.errors import ConfigError


def removable(
    kept: Sequence[Kinds], scores: Sequence[Kinds], divisor: int = 1
) -> list[Kinds]:
    """What remains when all is removed that may be.

    Of the masked channels those may be removed that are masked in Q and in K,
    and as many as every head of the block has. After a selection with both
    consistencies that is all of them.

    Args:
        kept: Masks of each block.
        scores: Column norms; where not all masked channels may go, the lowest
            go.
        divisor: Kept widths are made multiples of it by keeping some more of
            the masked channels, the highest-scored ones; a width that has no
            multiple below it stays whole. Defaults to 1.

    Returns:
        Masks with equal counts in all heads and equal positions in Q and K.
    """
    result = []
    for mask, score in zip(kept, scores):
        qk = _keep_more(mask.q | mask.k, score.q + score.k, divisor)
        v = _keep_more(mask.v, score.v, divisor)
        mlp = _keep_more(mask.mlp, score.mlp, divisor)
        result.append(Kinds(qk, qk, v, mlp))
    return result


def _keep_more(kept: ndarray, score: ndarray, divisor: int) -> ndarray:
    width = kept.shape[1]
    most = int(kept.sum(axis=1).max())
    most = min(width, -(-most // divisor) * divisor)
    # kept channels first, then the masked ones by falling score
    order = np.lexsort((-score, ~kept), axis=1)
    out = np.zeros_like(kept)
    np.put_along_axis(out, order[:, :most], True, axis=1)
    return out


def kept_widths(kept: Sequence[Kinds]) -> list[tuple[int, int, int]]:
    """(Q/K, V, MLP) widths of each block that consistent masks leave."""
    return [
        tuple(int(mask[0].sum()) for mask in (block.q, block.v, block.mlp))
        for block in kept
    ]


def pruned_arch(arch, kept: Sequence[Kinds]):
    """The arch that folding leads to.

    Args:
        arch: Arch of the unpruned model.
        kept: Masks of its first blocks, as from :func:`removable`.
    """
    dims = {}
    widths = zip(*kept_widths(kept))
    for name, new in zip(('qk_dims', 'v_dims', 'mlp_dims'), widths):
        # blocks that were not built keep their widths
        dims[name] = (*new, *getattr(arch, name)[len(new) :])
    return arch.replace(**dims)


@torch.no_grad()
def fold(
    model: nn.Module, divisor: int = 1
) -> tuple[object, dict[str, Tensor]]:
    """Fold the compactors into the layers and remove masked channels.

    The output equals that of the model with the removed columns at zero; call
    :func:`~mmvitcompress.channels.convergence.unconverged` or
    :func:`output_shift` first to see whether that is
    the model's own. The model itself isn't changed.

    Args:
        model: A :class:`~mmvitcompress.models.vit.ViT` with compactors; its
            ``arch`` is that of the unpruned model.
        divisor: Kept widths are made multiples of it; see :func:`removable`.
            Defaults to 1.

    Returns:
        The new arch, and tensors under timm's keys that fit it.

    Raises:
        ConfigError: If the model has no compactors.
    """
    compactors = _compactors(model)
    kept = _final(compactors, divisor)
    state_dict = {
        name: value.detach().clone()
        for name, value in model.state_dict().items()
        if not is_compactor(name)
    }
    blocks = dict(transformer_blocks(model))
    for (name, block), mask in zip(blocks.items(), kept):
        qkv = [torch.from_numpy(part.ravel()) for part in mask[:3]]
        hidden = torch.from_numpy(mask.mlp.ravel())
        for layer, rows in (('attn.qkv', torch.cat(qkv)), ('mlp.fc1', hidden)):
            composed = _composed(block.get_submodule(layer))
            for part, value in composed.items():
                index = rows.to(value.device)
                state_dict[f'{name}.{layer}.{part}'] = value[index]
        for layer, columns in (('attn.proj', qkv[2]), ('mlp.fc2', hidden)):
            key = f'{name}.{layer}.weight'
            index = columns.to(state_dict[key].device)
            state_dict[key] = state_dict[key][:, index]
    return pruned_arch(model.arch, kept), state_dict


def _compactors(model: nn.Module) -> list[Kinds]:
    compactors = find_compactors(model)
    if not compactors:
        raise ConfigError(
            f'{type(model).__name__} has no compactors; is this the '
            'checkpoint of a run without CDCP?'
        )
    return compactors


def _final(compactors: list[Kinds], divisor: int) -> list[Kinds]:
    kept, scores = kept_channels(compactors), column_norms(compactors)
    return removable(kept, scores, divisor)


def _composed(layer: nn.Module) -> dict[str, Tensor]:
    # once per model: double precision costs nothing and rounds only once
    parts = dict(weight=layer.weight, bias=layer.bias)
    composed = {}
    for name, value in parts.items():
        if value is None:
            continue
        pieces = value.double().split(layer.rows)
        pieces = [
            (c.weight.double() @ piece.view(*c.kept.shape, -1)).flatten(0, 1)
            for c, piece in zip(layer.compactors.values(), pieces)
        ]
        composed[name] = torch.cat(pieces).view(value.shape).to(value.dtype)
    return composed


@contextmanager
def without(
    compactors: Sequence[Kinds], kept: Sequence[Kinds]
) -> Iterator[None]:
    """Set the columns that aren't kept to zero for a while."""
    changed: list[tuple[Compactor, Tensor]] = []
    try:
        with torch.no_grad():
            for block, masks in zip(compactors, kept):
                for compactor, mask in zip(block, masks):
                    weight = compactor.weight
                    changed.append((compactor, weight.detach().clone()))
                    gone = torch.from_numpy(~mask).to(weight.device)
                    weight.masked_fill_(gone.unsqueeze(2), 0)
        yield
    finally:
        with torch.no_grad():
            for compactor, weight in changed:
                compactor.weight.copy_(weight)


@torch.no_grad()
def output_shift(model: nn.Module, images: Tensor, divisor: int = 1) -> float:
    """How far the output moves when masked channels are removed.

    Args:
        model: Has compactors; run in the mode that it is in.
        images: (B, 3, H, W), as the model takes them.
        divisor: As for :func:`fold`.

    Returns:
        The largest change of an output element, as a fraction of the largest
        output element.
    """
    compactors = _compactors(model)
    before = list(tensors_of(model(images)))
    with without(compactors, _final(compactors, divisor)):
        after = list(tensors_of(model(images)))
    return relative_difference(before, after)


def relative_difference(
    reference: Sequence[Tensor], other: Sequence[Tensor]
) -> float:
    """Largest ``|a − b|`` over largest ``|a|``, over all pairs of tensors."""
    gap = max((a - b).abs().max().item() for a, b in zip(reference, other))
    scale = max(a.abs().max().item() for a in reference)
    return gap / scale if scale else gap


def tensors_of(output) -> Iterator[Tensor]:
    """All floating-point tensors of a model's output, however nested."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Sequence) and not isinstance(output, str):
        for part in output:
            yield from tensors_of(part)
