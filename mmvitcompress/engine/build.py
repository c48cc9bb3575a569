"""A model's config in the shape of the checkpoint that it is to load.

What was merged, pruned or slimmed stands in the checkpoint. A config tells
what training started from, so the checkpoint's arch wins over it.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmvitcompress.channels.compactors import is_compactor
from mmvitcompress.checkpoints.file import checkpoint_arch
from mmvitcompress.errors import CheckpointError

_REDUCTIONS = ('token_merging', 'patch_slimming')


def is_whole(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether tensors are a whole model's, rather than only a backbone's."""
    return any(name.startswith('backbone.') for name in state_dict)


def require_whole(state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise CheckpointError if tensors are only a backbone's."""
    if not is_whole(state_dict):
        raise CheckpointError(
            f'checkpoint {str(path)!r} holds a backbone only; give the one '
            'that training the whole model wrote'
        )


def set_arch(backbone: dict, arch: Mapping) -> None:
    """Let a backbone's config build exactly one shape, in place.

    Args:
        backbone: Config of one of our backbones; it builds random weights
            and no compactors from then on.
        arch: The shape, as a checkpoint carries it.
    """
    for name in ('img_size', *_REDUCTIONS, 'compactors'):
        backbone.pop(name, None)
    backbone.update(arch=dict(arch), checkpoint=None)


def take_shape(
    model: dict,
    state_dict: Mapping[str, Tensor],
    meta: Mapping,
    path: str | Path,
) -> None:
    """Let a model's config build what a checkpoint holds, in place.

    For a whole model's checkpoint the config then needs no other file and
    every tensor fits; loading is left to the caller. A backbone's checkpoint
    becomes the one that the backbone loads by itself. Its position embedding
    is resized to the config's ``img_size``, which therefore stays.

    Args:
        model: Config of a segmentor, detector or classifier; its teacher
            goes. Without an arch in ``meta`` the shape stays the config's.
        state_dict: The checkpoint's tensors.
        meta: The checkpoint's meta data.
        path: The checkpoint's file.

    Raises:
        CheckpointError: If the arch in ``meta`` is not a dict.
        ConfigError: If it has wrong values.
    """
    model.pop('distillation', None)
    backbone = model.get('backbone')
    if backbone is None:
        return
    arch = checkpoint_arch(meta, path)
    backbone.pop('compactors', None)
    if not is_whole(state_dict):
        for name in _REDUCTIONS if arch else ():
            backbone.pop(name, None)
        backbone['checkpoint'] = str(path)
    elif arch:
        set_arch(backbone, arch.to_dict())
    elif not Path(backbone.get('checkpoint') or '').is_file():
        # without an arch the file that training started from tells the shape
        backbone.pop('checkpoint', None)
    if any(map(is_compactor, state_dict)):
        backbone['compactors'] = True
