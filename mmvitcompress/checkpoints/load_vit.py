"""Filling a plain ViT from a checkpoint, strictly."""

from mmengine.logging import print_log
from torch import Tensor

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.file import resize_pos_embed
from mmvitcompress.errors import CheckpointError
from mmvitcompress.models.backbones.parts import (
    VIT,
    load_weights,
    read_weights,
    reconcile,
)
from mmvitcompress.models.vit import ViT

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
_PREDICTOR = 'patch_slimming.'


def read_vit(
    path: str, wanted: ViTArch | None, how_to_make: str
) -> tuple[dict[str, Tensor], ViTArch]:
    """Tensors under timm's keys, and their arch.

    Arguments and errors are those of
    :func:`~mmvitcompress.models.backbones.parts.read_weights`.
    """
    state_dict, source = read_weights(VIT, path, wanted, how_to_make)
    if (
        wanted is not None
        and source.patch_slimming is None
        and any(key.startswith(_PREDICTOR) for key in state_dict)
    ):
        # when its patches leave can't be seen in tensors
        source = source.replace(patch_slimming=wanted.patch_slimming)
    return state_dict, source


def reconcile_vit(
    source: ViTArch,
    wanted: ViTArch | None,
    path: str,
    soft_slimming: bool = False,
) -> ViTArch:
    """The checkpoint's arch, with what only the config asks for added.

    Args:
        source: The checkpoint's arch.
        wanted: The config's, or None if it leaves it open.
        path: The checkpoint's file, for messages.
        soft_slimming: Whether a life predictor may start untrained. Defaults
            to False.

    Raises:
        CheckpointError: If they don't fit together.
    """
    resolved = reconcile(
        source, wanted, path, _IDENTITY, ('token_merging', 'patch_slimming')
    )
    lacks_predictor = resolved.patch_slimming and not source.patch_slimming
    if lacks_predictor and not soft_slimming:
        raise CheckpointError(
            f'checkpoint {path!r} has no life predictor, which '
            'patch_slimming needs: train one by a lifeslim config '
            '(soft_slimming=True), or leave patch_slimming away'
        )
    return resolved


def load_vit(
    model: ViT,
    state_dict: dict[str, Tensor],
    source: ViTArch,
    path: str,
    soft_slimming: bool = False,
) -> None:
    """Fill a ViT strictly; the position embedding may be resized.

    Args:
        model: The model. New merges may start anew; what it was built without
            is ignored.
        state_dict: Tensors under timm's keys.
        source: Their arch.
        path: Where they came from, for messages.
        soft_slimming: Whether a life predictor may start untrained. Defaults
            to False.

    Raises:
        CheckpointError: If anything doesn't fit.
    """
    if resize_pos_embed(state_dict, source, model.arch):
        print_log(
            f'position embedding of {path} resized from '
            f'{source.pos_grid} to {model.arch.pos_grid}',
            'current',
        )
    unused = [
        f'{part}.{index}.'
        for part in ('blocks', 'token_merging')
        for index in range(len(model.blocks), source.depth)
    ]
    if model.norm is None:
        unused.append('norm.')
    if model.patch_slimming is None:
        unused.append(_PREDICTOR)
    may_start = {}
    if source.token_merging is None:
        may_start['new merges start as means'] = ['token_merging.']
    if source.patch_slimming is None and soft_slimming:
        may_start['the life predictor starts untrained'] = [_PREDICTOR]
    load_weights(model, state_dict, path, may_start, unused)
