"""Filling a Swin from a checkpoint, strictly."""

from torch import Tensor
from torch.nn.functional import interpolate

from mmvitcompress.arch.swin import MERGE_STAGE, SwinArch
from mmvitcompress.checkpoints.load import (
    Log,
    load_backbone,
    new_methods,
    reconcile,
)
from mmvitcompress.checkpoints.recognise import Weights
from mmvitcompress.checkpoints.swin import TABLE
from mmvitcompress.models.swin import Swin

# what a checkpoint and the arch that the config names must agree in
_IDENTITY = (
    'embed_dim',
    'depths',
    'num_heads',
    'window_size',
    'patch_size',
    'in_chans',
    'qkv_bias',
)


def reconcile_swin(
    weights: Weights,
    wanted: SwinArch | None,
    window_size: int | None,
    log: Log,
) -> SwinArch:
    """The checkpoint's arch, with what only the config asks for added.

    Args:
        weights: The checkpoint.
        wanted: The config's arch, or None if it leaves it open.
        window_size: Edge of the windows to which the checkpoint's are to be
            resized, whatever they are; None if they must fit.
        log: Told what of the config does not count.

    Raises:
        CheckpointError: If they don't fit together.
    """
    if wanted is None:
        return weights.arch
    remedy = (
        f'; give window_size={wanted.window_size} beside arch to resize its '
        'position biases'
    )
    identity = [
        name
        for name in _IDENTITY
        if name != 'window_size' or window_size is None
    ]
    arch = reconcile(weights, wanted, identity, log, dict(window_size=remedy))
    return arch.replace(pad_first=wanted.pad_first or arch.pad_first)


def load_swin(model: Swin, weights: Weights, log: Log) -> None:
    """Fill a Swin strictly; its tables may be resized.

    Args:
        model: The model, maybe with output norms ``norm{i}``. Those and new
            merges may start anew; what it was built without is ignored.
        weights: The checkpoint.
        log: Told what was loaded and resized.

    Raises:
        CheckpointError: If anything doesn't fit.
    """
    source, window = weights.arch, model.arch.window_size
    if source.window_size != window:
        _resize_tables(weights.tensors, source.window_size, window)
        log(
            f'position biases of {weights.path} resized from windows of '
            f'{source.window_size} to {window}'
        )
    depths = source.depths
    # an ImageNet checkpoint has none: they start as plain LayerNorms
    norms = [f'norm{i}.' for i in range(len(depths))]
    built = len(model.layers)
    unused = norms + [f'layers.{i}.' for i in range(built, len(depths))]
    if built <= MERGE_STAGE:
        unused += [f'{spec.key}.' for spec in source.reductions]
    if model.norm is None:
        unused.append('norm.')
    new = new_methods(weights)
    may_start = {
        spec.start: [f'{spec.key}.']
        for spec in model.arch.reductions
        if spec.start and spec.key in new
    }
    may_start['the norms of the outputs start anew'] = norms
    load_backbone(model, weights, log, may_start, unused)


def _resize_tables(state_dict: dict[str, Tensor], old: int, new: int) -> None:
    """Interpolate position biases, bicubically as Swin's authors do."""
    for key, table in state_dict.items():
        if key.endswith(TABLE):
            offsets = table.T.unflatten(1, (2 * old - 1, -1))[None]
            offsets = interpolate(offsets, [2 * new - 1] * 2, mode='bicubic')
            state_dict[key] = offsets[0].flatten(1).T.contiguous()
