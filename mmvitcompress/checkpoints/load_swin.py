"""Filling a Swin from a checkpoint, strictly."""

from mmengine.logging import print_log
from torch import Tensor
from torch.nn.functional import interpolate

from mmvitcompress.arch.swin import MERGE_STAGE, SwinArch
from mmvitcompress.checkpoints.swin import TABLE
from mmvitcompress.models.backbones.parts import load_weights, reconcile
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
    source: SwinArch,
    wanted: SwinArch | None,
    window_size: int | None,
    path: str,
) -> SwinArch:
    """The checkpoint's arch, with what only the config asks for added.

    Args:
        source: The checkpoint's arch.
        wanted: The config's, or None if it leaves it open.
        window_size: Edge of the windows to which the checkpoint's are to be
            resized, whatever they are; None if they must fit.
        path: The checkpoint's file, for messages.

    Raises:
        CheckpointError: If they don't fit together.
    """
    if wanted is None:
        return source
    remedy = (
        f'; give window_size={wanted.window_size} beside arch to resize its '
        'position biases'
    )
    identity = [
        name
        for name in _IDENTITY
        if name != 'window_size' or window_size is None
    ]
    remedies = dict(window_size=remedy)
    source = reconcile(source, wanted, path, identity, remedies)
    return source.replace(pad_first=wanted.pad_first or source.pad_first)


def load_swin(
    model: Swin, state_dict: dict[str, Tensor], source: SwinArch, path: str
) -> None:
    """Fill a Swin strictly; the tables of ``state_dict`` may be resized.

    Args:
        model: The model, maybe with output norms ``norm{i}``. Those and new
            merges may start anew; what it was built without is ignored.
        state_dict: Tensors under timm's keys.
        source: Their arch.
        path: Where they came from, for messages.

    Raises:
        CheckpointError: If anything doesn't fit.
    """
    if source.window_size != model.arch.window_size:
        _resize_tables(
            state_dict, source.window_size, model.arch.window_size, path
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
    may_start = {
        spec.start: [f'{spec.key}.']
        for spec in model.arch.reductions
        if spec.start and getattr(source, spec.key) is None
    }
    may_start['the norms of the outputs start anew'] = norms
    load_weights(model, state_dict, path, may_start, unused)


def _resize_tables(
    state_dict: dict[str, Tensor], old: int, new: int, path: str
) -> None:
    """Interpolate position biases, bicubically as Swin's authors do."""
    for key, table in state_dict.items():
        if key.endswith(TABLE):
            offsets = table.T.unflatten(1, (2 * old - 1, -1))[None]
            offsets = interpolate(offsets, [2 * new - 1] * 2, mode='bicubic')
            state_dict[key] = offsets[0].flatten(1).T.contiguous()
    print_log(
        f'position biases of {path} resized from windows of {old} to {new}',
        'current',
    )
