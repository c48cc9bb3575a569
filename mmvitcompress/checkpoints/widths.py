"""How many channels a checkpoint has kept, block by block, head by head."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from torch import Tensor

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.zoo import ARCHS
from mmvitcompress.channels import Kinds, kept_widths, removable
from mmvitcompress.channels.constraints import FREE, Constraints
from mmvitcompress.checkpoints.file import read_checkpoint
from mmvitcompress.errors import CheckpointError

_MASK = re.compile(r'(.*?)(?:attn\.qkv|mlp\.fc[12])\.compactors\.(\w+)\.kept$')


class Widths(NamedTuple):
    """Channels of each block: Q/K and V in each head, MLP.

    Attributes:
        kept: (blocks, 3), what is left; of whole heads that are gone nothing,
            in the mean over all.
        dense: (blocks, 3), what there was.
    """

    kept: ndarray
    dense: ndarray

    @property
    def shares(self) -> ndarray:
        """Fraction kept of each kind in each block, (blocks, 3)."""
        return self.kept / self.dense


class HeadChannels(NamedTuple):
    """What became of one kind of channels, in numbers (blocks, heads).

    Attributes:
        kept: Not masked.
        stuck: Masked and near zero, but not to be removed: other heads have
            masked fewer, or the partner in Q or K isn't masked.
        removed: Masked and removed.
    """

    kept: ndarray
    stuck: ndarray
    removed: ndarray


def read_widths(path: str | Path) -> Widths:
    """Channels that a checkpoint has kept.

    Args:
        path: A checkpoint that carries its arch, such as training runs and
            tools/export_pruned.py write; or one of a pruning run, whose masks
            count.

    Raises:
        CheckpointError: If it can't be read or tells neither.
    """
    checkpoint = read_checkpoint(path)
    state_dict, arch = checkpoint.state_dict, checkpoint.arch
    masks, norms = masks_of(state_dict)
    if masks:
        return widths_of(masks, norms, _demands(arch))
    if arch is None:
        raise CheckpointError(
            f'checkpoint {str(path)!r} tells no widths: give one that '
            'tools/export_pruned.py or a training run has written'
        )
    kept, full = (
        np.array([each.qk_dims, each.v_dims, each.mlp_dims]).T
        for each in (arch, unpruned(arch))
    )
    if getattr(arch, 'heads', None):
        left = np.array(arch.heads)[:, None] / arch.num_heads
        kept = kept * np.hstack([left, left, np.ones_like(left)])
    return Widths(kept, full)


def widths_of(
    masks: Sequence[Kinds],
    norms: Sequence[Kinds],
    constraints: Constraints = FREE,
) -> Widths:
    """What is left of blocks (:func:`masks_of`) once all that can go has."""
    dense = [[p.shape[1] for p in (m.q, m.v, m.mlp)] for m in masks]
    kept = removable(masks, norms, constraints=constraints)
    return Widths(np.array(kept_widths(kept)), np.array(dense))


def _demands(arch: Arch | None) -> Constraints:
    return FREE if arch is None else Constraints.of(arch)


def unpruned(arch: Arch) -> Arch:
    """The same arch with all of its channels.

    A named arch of that size knows best: LV-ViT's MLPs aren't four times as
    wide as its tokens.
    """
    names = ('qk_dims', 'v_dims', 'mlp_dims', 'heads')
    names = [name for name in names if hasattr(arch, name)]
    full = arch.replace(**dict.fromkeys(names))
    names = ('embed_dim', 'num_heads')
    if hasattr(arch, 'depths'):
        names += ('depths',)
    else:
        names += ('depth', 'stem', 'mlp', 'rope')
    same = [
        other
        for other in ARCHS.values()
        if isinstance(other, type(arch))
        and all(getattr(other, n) == getattr(arch, n) for n in names)
    ]
    if not same:
        return full
    widest = max(same, key=lambda other: sum(other.mlp_dims))
    return full.replace(mlp_dims=widest.mlp_dims)


def masks_of(
    state_dict: Mapping[str, Tensor],
) -> tuple[list[Kinds], list[Kinds]]:
    """Masks and column norms ‖C[:, c]‖₂ of a pruning run's blocks.

    Returns:
        For each block, in forward order, arrays (groups, width), of bool and
        of float; two empty lists if the state has no compactors.
    """
    masks, norms = defaultdict(dict), defaultdict(dict)
    for name, mask in state_dict.items():
        if found := _MASK.match(name):
            block, kind = found.groups()
            weight = state_dict[name.removesuffix('kept') + 'weight']
            masks[block][kind] = mask.bool().cpu().numpy()
            norms[block][kind] = weight.double().norm(dim=2).cpu().numpy()
    return tuple([Kinds(**p) for p in x.values()] for x in (masks, norms))


def read_heads(path: str | Path) -> dict[str, HeadChannels]:
    """What became of the channels of each head in a pruning run.

    Args:
        path: Checkpoint of a run with compactors.

    Returns:
        Under 'q', 'k' and 'v'.

    Raises:
        CheckpointError: If it can't be read, has no compactors, or its blocks
            differ in heads (as a Swin's do).
    """
    checkpoint = read_checkpoint(path)
    masks, norms = masks_of(checkpoint.state_dict)
    if not masks:
        raise CheckpointError(
            f'checkpoint {str(path)!r} has no compactors, whose masks tell '
            'heads apart: give one that the pruning run itself has written, '
            'not the exported one'
        )
    heads = {mask.q.shape for mask in masks}
    if len(heads) > 1:
        raise CheckpointError(
            f'checkpoint {str(path)!r} has blocks of different heads '
            f'(heads, width: {sorted(heads)}), which one picture cannot '
            'hold; draw what its blocks keep instead'
        )
    demands = _demands(checkpoint.arch)
    final, result = removable(masks, norms, constraints=demands), {}
    for kind in ('q', 'k', 'v'):
        kept, left = (
            np.stack([getattr(block, kind) for block in blocks])
            for blocks in (masks, final)
        )
        counts = [x.sum(2) for x in (kept, ~kept & left, ~left)]
        result[kind] = HeadChannels(*counts)
    return result
