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
from mmvitcompress.tokens import METHODS, TokenSpec

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


def read_vit(
    path: str, wanted: ViTArch | None, how_to_make: str
) -> tuple[dict[str, Tensor], ViTArch]:
    """Tensors under timm's keys, and their arch.

    Arguments and errors are those of
    :func:`~mmvitcompress.models.backbones.parts.read_weights`.
    """
    state_dict, source = read_weights(VIT, path, wanted, how_to_make)
    for spec in () if wanted is None else wanted.reductions:
        stored = any(key.startswith(f'{spec.key}.') for key in state_dict)
        if stored and getattr(source, spec.key) is None:
            # where tokens leave can't be seen in tensors
            source = source.replace(**{spec.key: spec})
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
    resolved = reconcile(source, wanted, path, _IDENTITY)
    for spec in _new(resolved, source):
        if spec.untrained and not soft_slimming:
            raise CheckpointError(f'checkpoint {path!r} {spec.untrained}')
    return resolved


def _new(arch: ViTArch, source: ViTArch) -> list[TokenSpec]:
    """The token methods that only ``arch`` has."""
    return [s for s in arch.reductions if getattr(source, s.key) is None]


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
        for part in ('blocks', *METHODS)
        for index in range(len(model.blocks), source.depth)
    ]
    if model.norm is None:
        unused.append('norm.')
    unused += [
        f'{spec.key}.'
        for spec in source.reductions
        if spec.key not in model.method_keys
    ]
    may_start = {
        spec.start: [f'{spec.key}.']
        for spec in _new(model.arch, source)
        if spec.start
    }
    load_weights(model, state_dict, path, may_start, unused)
