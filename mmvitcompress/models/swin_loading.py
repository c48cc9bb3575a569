"""Filling a Swin from a checkpoint, strictly."""

from mmengine.logging import print_log
from torch import Tensor
from torch.nn.functional import interpolate

from mmvitcompress.checkpoint import (
    checkpoint_arch,
    load_strict,
    read_checkpoint,
)
from mmvitcompress.conversion import HEAD_PREFIXES, to_timm_keys
from mmvitcompress.conversion_swin import (
    TABLE,
    infer_swin_arch,
    is_swin,
    swin_to_timm_keys,
)
from mmvitcompress.errors import CheckpointError
from mmvitcompress.models.swin import Swin
from mmvitcompress.swin_arch import MERGE_STAGE, SwinArch

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
_WIDTHS = ('qk_dims', 'v_dims', 'mlp_dims')


def read_swin(
    path: str, wanted: SwinArch | None
) -> tuple[dict[str, Tensor], SwinArch]:
    """Tensors under timm's keys, and their arch."""
    try:
        state_dict, meta = read_checkpoint(path)
    except CheckpointError as error:
        if 'not found' not in str(error):
            raise
        raise CheckpointError(
            f'{error}: convert a Swin by tools/convert_checkpoint.py, or '
            'point elsewhere with --cfg-options '
            'model.backbone.checkpoint=PATH (None starts from random weights)'
        ) from None
    state_dict = to_timm_keys(state_dict)
    if not is_swin(state_dict):
        raise CheckpointError(
            f'checkpoint {path!r} is not a Swin: it has no position biases of '
            'windows; for a plain ViT use CompressedViT'
        )
    state_dict = swin_to_timm_keys(state_dict)
    source = checkpoint_arch(meta, path)
    if source is None:
        source = infer_swin_arch(state_dict, wanted, path)
    return state_dict, source


def reconcile(
    source: SwinArch,
    wanted: SwinArch | None,
    window_size: int | None,
    path: str,
) -> SwinArch:
    """The checkpoint's arch, with what only the config asks for added."""
    if wanted is None:
        return source
    for name in _IDENTITY:
        ours, theirs = getattr(wanted, name), getattr(source, name)
        if name == 'window_size' and window_size is not None:
            continue
        if ours != theirs:
            remedy = ''
            if name == 'window_size':
                remedy = (
                    f'; give window_size={ours} beside arch to resize its '
                    'position biases'
                )
            raise CheckpointError(
                f'checkpoint {path!r} is of another arch: its {name} is '
                f'{theirs}, but the config asks for {ours}{remedy}'
            )
    if source.token_merging is None:
        source = source.replace(token_merging=wanted.token_merging)
    source = source.replace(pad_first=wanted.pad_first or source.pad_first)
    for name in (*_WIDTHS, 'token_merging'):
        ours, theirs = getattr(wanted, name), getattr(source, name)
        if ours is not None and theirs != ours:
            print_log(
                f'{name} of {path} replaces that of the config: {theirs}',
                'current',
            )
    return source


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
    unused = [f'norm{i}.' for i in range(len(depths))]
    unused += [f'layers.{i}.' for i in range(len(model.layers), len(depths))]
    if len(model.layers) <= MERGE_STAGE:
        unused.append('token_merging.')
    if model.norm is None:
        unused.append('norm.')
    # an ImageNet checkpoint has none: they start as plain LayerNorms
    may_start = [f'norm{i}.' for i in range(len(depths))]
    if source.token_merging is None:
        may_start.append('token_merging.')  # as the mean of each group
    new = load_strict(
        model,
        state_dict,
        path,
        may_miss=tuple(may_start),
        may_ignore=(*HEAD_PREFIXES, *unused),
    )
    note = ''
    if any(name.startswith('token_merging.') for name in new):
        note += '; new merges start as means'
    if any(name.startswith('norm') for name in new):
        note += '; the norms of the outputs start anew'
    print_log(f'backbone loaded from {path}{note}', 'current')


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
