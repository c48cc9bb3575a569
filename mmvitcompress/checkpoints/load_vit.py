"""Filling a plain ViT from a checkpoint, strictly."""

from timm.layers import resample_abs_pos_embed
from torch import Tensor

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.load import (
    Log,
    load_backbone,
    new_methods,
    reconcile,
)
from mmvitcompress.checkpoints.recognise import Weights
from mmvitcompress.errors import CheckpointError
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import METHODS

# what a checkpoint and the arch that the config names must agree in
_IDENTITY = (
    'embed_dim',
    'depth',
    'num_heads',
    'head_dim',
    'patch_size',
    'in_chans',
    'stem',
    'stem_dim',
    'class_token',
    'dist_token',
    'reg_tokens',
    'layer_scale',
)


def reconcile_vit(
    weights: Weights, wanted: ViTArch | None, soft_slimming: bool, log: Log
) -> ViTArch:
    """The checkpoint's arch, with what only the config asks for added.

    Args:
        weights: The checkpoint.
        wanted: The config's arch, or None if it leaves it open.
        soft_slimming: Whether a life predictor may start untrained.
        log: Told what of the config does not count.

    Raises:
        CheckpointError: If they don't fit together.
    """
    windowed = wanted is not None and wanted.window_size is not None
    use = ('window_size', 'global_blocks') if windowed else ()
    arch = reconcile(weights, wanted, _IDENTITY, log, use=use)
    new = new_methods(weights)
    for spec in arch.reductions:
        if spec.key in new and spec.untrained and not soft_slimming:
            raise CheckpointError(
                f'checkpoint {weights.path!r} {spec.untrained}'
            )
    return arch


def load_vit(
    model: ViT, weights: Weights, soft_slimming: bool, log: Log
) -> None:
    """Fill a ViT strictly; the position embedding may be resized.

    Args:
        model: The model. New merges may start anew; what it was built without
            is ignored.
        weights: The checkpoint.
        soft_slimming: Whether a life predictor may start untrained.
        log: Told what was loaded and resized.

    Raises:
        CheckpointError: If anything doesn't fit.
    """
    source, depth = weights.arch, len(model.blocks)
    if resize_pos_embed(weights.tensors, source, model.arch):
        log(
            f'position embedding of {weights.path} resized from '
            f'{source.pos_grid} to {model.arch.pos_grid}'
        )
    unused = [
        f'{part}.{index}.'
        for part in ('blocks', *METHODS)
        for index in range(depth, source.depth)
    ]
    if model.norm is None:
        unused.append('norm.')
    unused += [
        f'{spec.key}.'
        for spec in (*source.reductions, *model.arch.reductions)
        if spec.key not in model.method_keys
    ]
    new = new_methods(weights)
    may_start = {
        spec.start: [f'{spec.key}.']
        for spec in model.arch.reductions
        if spec.start
        and spec.key in new
        and (soft_slimming or not spec.untrained)
    }
    load_backbone(model, weights, log, may_start, unused)


def resize_pos_embed(
    state_dict: dict[str, Tensor], source: ViTArch, target: ViTArch
) -> bool:
    """Resize the position embedding in place to the grid of ``target``.

    Returns:
        Whether it had to be resized.
    """
    if 'pos_embed' not in state_dict or source.pos_grid == target.pos_grid:
        return False
    prefix = source.num_prefix_tokens if source.pos_embed == 'all' else 0
    state_dict['pos_embed'] = resample_abs_pos_embed(
        state_dict['pos_embed'],
        new_size=list(target.pos_grid),
        old_size=list(source.pos_grid),
        num_prefix_tokens=prefix,
    )
    return True
