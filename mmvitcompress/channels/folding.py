"""From compactors to narrower layers, and whether that is safe.

Folding removes what is masked: W' = W·C[:, kept], b' = b·C[:, kept], and the
rows of W_O and W_2 that V's and W_1's channels fed. The softmax scale stays
1/√d of the original head width.

Rotary positions turn what comes after C, by frequencies of their own for each
pair of columns: C may mix whatever it likes, while a pair that stays must keep
its frequency. Which ones each head has kept goes with the tensors, as
``attn.rope_index``.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from mmvitcompress.channels.compactors import (
    Kinds,
    column_norms,
    each_kind,
    find_compactors,
    gated,
    is_compactor,
    kept_channels,
    transformer_blocks,
)
from mmvitcompress.channels.constraints import (
    FREE,
    Constraints,
    kept_units,
)
from mmvitcompress.errors import ConfigError


def removable(
    kept: Sequence[Kinds],
    scores: Sequence[Kinds],
    divisor: int = 1,
    constraints: Constraints = FREE,
) -> list[Kinds]:
    """Masks of what stays when all that may be removed is.

    Heads of which nothing is kept go in whole. Of the other masked channels
    those may go that are masked in Q and in K, and as many as every head left
    of the block has: all of them after a selection with both consistencies.

    Args:
        kept: Masks of each block.
        scores: Column norms; where not all masked channels may go, the lowest
            go.
        divisor: Kept widths are made multiples of it by keeping some more of
            the masked channels, the highest-scored ones; a width that has no
            multiple below it stays whole.
        constraints: What else the arch demands of its channels. Defaults to
            nothing.

    Returns:
        Masks with equal counts in all heads that are left and equal positions
        in Q and K.
    """

    def keep_more(
        mask: ndarray, score: ndarray, kind: str, left=slice(None)
    ) -> ndarray:
        step = constraints.multiple(divisor) if kind == 'q' else divisor
        most = -(-int(mask.sum(axis=1).max()) // step) * step
        if constraints.keeps(kind):
            most = mask.shape[1]
        # kept channels first, then the masked ones by falling score
        order = np.lexsort((-score, ~mask), axis=1)
        out = np.zeros_like(mask)
        part = out[left]
        np.put_along_axis(part, order[left, :most], True, axis=1)
        out[left] = part
        return out

    result = []
    for mask, score in zip(map(constraints.any_of, kept), scores):
        score = constraints.joined(score)
        left = np.hstack(mask[:3]).any(axis=1) | constraints.keeps('v')
        qk = keep_more(mask.q | mask.k, score.q + score.k, 'q', left)
        v = keep_more(mask.v, score.v, 'v', left)
        mlp = keep_more(mask.mlp, score.mlp, 'mlp')
        result.append(constraints.spread(Kinds(qk, qk, v, mlp)))
    return result


def kept_widths(kept: Sequence[Kinds]) -> list[tuple[int, int, int]]:
    """(Q/K, V, MLP) widths of each block that consistent masks leave.

    Where whole heads are gone those of Q/K and V are means over all heads,
    fractions if need be: what the block costs.
    """
    return [
        tuple(_mean(mask) for mask in (block.q, block.v, block.mlp))
        for block in kept
    ]


def _mean(mask: ndarray) -> int | float:
    width, rest = divmod(int(mask.sum()), len(mask))
    return width + rest / len(mask) if rest else width


def left_widths(
    compactors: Sequence[Kinds], constraints: Constraints = FREE
) -> list[tuple[int, int, int]]:
    """(Q/K, V, MLP) widths of each block once all that may go has, by the
    masks of the moment."""
    return kept_widths(final_masks(compactors, 1, constraints))


def pruned_arch(arch, kept: Sequence[Kinds]):
    """The arch that folding leads to, by masks as from :func:`removable`."""
    dims = {}
    parts = [(block.q, block.v, block.mlp) for block in kept]
    # any head that is left tells the width
    widths = zip(*([int(m.sum(1).max()) for m in masks] for masks in parts))
    for name, new in zip(('qk_dims', 'v_dims', 'mlp_dims'), widths):
        # blocks that were not built keep their widths
        dims[name] = (*new, *getattr(arch, name)[len(new) :])
    heads = [int(block.v.any(axis=1).sum()) for block in kept]
    if any(left < len(block.v) for left, block in zip(heads, kept)):
        layers = range(len(heads) + 1, arch.depth + 1)
        dims['heads'] = (*heads, *map(arch.heads_in, layers))
    return arch.replace(**dims)


@torch.no_grad()
def fold(
    model: nn.Module, divisor: int = 1
) -> tuple[object, dict[str, Tensor]]:
    """Fold the compactors into the layers and remove masked channels.

    The output equals that of the model with the removed columns at zero;
    :func:`~mmvitcompress.channels.convergence.unconverged` and
    :func:`output_shift` say whether that is the model's own. The model itself
    isn't changed.

    Args:
        model: Has compactors, and the ``arch`` of the unpruned model.
        divisor: As for :func:`removable`.

    Returns:
        The new arch, and tensors under timm's keys that fit it.

    Raises:
        ConfigError: If the model has no compactors.
    """
    demands = Constraints.of(model.arch)
    kept = final_masks(_compactors(model), divisor, demands)
    state_dict = {
        name: value.detach().clone()
        for name, value in model.state_dict().items()
        if not is_compactor(name)
    }
    for (name, block), mask in zip(transformer_blocks(model), kept):
        hidden = torch.from_numpy(mask.mlp.ravel())
        rows = torch.cat([torch.from_numpy(x.ravel()) for x in mask[:3]])
        both = hidden.repeat(block.mlp.fc1.out_features // len(hidden))
        inner = 'mlp.fc2' if gated(block.mlp) else 'mlp.fc1'
        for layer in ('attn.qkv', inner):
            # once per model: double precision costs nothing, rounds only once
            linear = copy.deepcopy(block.get_submodule(layer)).double()
            for part, value in zip(('weight', 'bias'), linear.composed()):
                if value is not None:
                    key = f'{name}.{layer}.{part}'
                    state_dict[key] = value.to(state_dict[key].dtype)
        values = torch.from_numpy(mask.v.ravel())
        for key, dim, stays in (
            ('attn.qkv.weight', 0, rows),
            ('attn.qkv.bias', 0, rows),
            ('attn.proj.weight', 1, values),
            ('mlp.fc1.weight', 0, both),
            ('mlp.fc1.bias', 0, both),
            ('mlp.fc2.weight', 1, hidden),
        ):
            value = state_dict.get(f'{name}.{key}')
            if value is not None:
                stays = stays.nonzero().flatten().to(value.device)
                state_dict[f'{name}.{key}'] = value.index_select(dim, stays)
        if demands.unit > 1:
            _keep_turns(state_dict, f'{name}.attn.rope_index', mask.q, demands)
    return pruned_arch(model.arch, kept), state_dict


def _keep_turns(
    state_dict: dict[str, Tensor],
    key: str,
    mask: ndarray,
    demands: Constraints,
) -> None:
    """Note by which of the original pairs each head is turned, in place."""
    places = torch.from_numpy(kept_units(mask, demands.unit))
    before = state_dict.get(key)
    if before is not None:
        left = torch.from_numpy(mask.any(axis=1)).to(before.device)
        state_dict[key] = before[left].gather(1, places.to(before.device))
    elif places.shape[1] * demands.unit < mask.shape[1]:
        state_dict[key] = places


def _compactors(model: nn.Module) -> list[Kinds]:
    compactors = find_compactors(model)
    if not compactors:
        raise ConfigError(
            f'{type(model).__name__} has no compactors; is this the '
            'checkpoint of a run without CDCP?'
        )
    return compactors


def final_masks(
    compactors: Sequence[Kinds], divisor: int, demands: Constraints
) -> list[Kinds]:
    """Masks of what folding leaves, by the compactors as they are; see
    :func:`removable`."""
    kept, scores = kept_channels(compactors), column_norms(compactors)
    return removable(kept, scores, divisor, demands)


@contextmanager
def without(
    compactors: Sequence[Kinds], kept: Sequence[Kinds]
) -> Iterator[None]:
    """Set the columns that aren't kept to zero for a while."""
    weights = [compactor.weight for compactor in each_kind(compactors)]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, mask in zip(weights, each_kind(kept)):
            gone = torch.from_numpy(~mask).to(weight.device)
            weight.masked_fill_(gone.unsqueeze(2), 0)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before):
                weight.copy_(value)


@torch.no_grad()
def output_shift(model: nn.Module, images: Tensor, divisor: int = 1) -> float:
    """How far the output moves when masked channels are removed.

    Args:
        model: Has compactors; run in the mode that it is in.
        images: (B, 3, H, W), as the model takes them.
        divisor: As for :func:`removable`.

    Returns:
        The largest change, as a fraction of the largest output element.
    """
    compactors = _compactors(model)
    before = list(tensors_of(model(images)))
    demands = Constraints.of(model.arch)
    with without(compactors, final_masks(compactors, divisor, demands)):
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
    if isinstance(output, Tensor) and output.is_floating_point():
        yield output
    elif isinstance(output, list | tuple):
        for part in output:
            yield from tensors_of(part)
