"""Checkpoints: one small file that carries its own shape.

``{'state_dict': timm-style keys, 'meta': {'arch': {...}, ...}}`` holds only
tensors and builtin types, so that ``torch.load(weights_only=True)`` reads it.
As ``.safetensors`` the same meta data stands as JSON in the file's header.
Reading never runs code from a file; loading is strict.
"""

import argparse
import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import arch_from_dict
from mmvitcompress.channels.compactors import is_compactor
from mmvitcompress.errors import CheckpointError
from mmvitcompress.utils.files import replacing

_SAFE_CLASSES = [argparse.Namespace]  # DeiT's training script saves its flags


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read a checkpoint file of ours, of timm, DeiT or MMEngine.

    Args:
        path: ``.safetensors``, or anything that ``torch.save`` wrote.

    Returns:
        The state dict as it was stored, and the meta data ({} if there is
        none).

    Raises:
        CheckpointError: If the file is missing, truncated, no checkpoint, or
            holds more than data.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'checkpoint {str(path)!r} not found')
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    try:
        with torch.serialization.safe_globals(_SAFE_CLASSES):
            content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        reason = _first_line(error)
        if 'Unsupported' in str(error) or 'GLOBAL' in str(error):
            reason = (
                'it holds more than tensors and builtin types and might run '
                'code; save it again as a plain state dict'
            )
        raise CheckpointError(
            f'checkpoint {str(path)!r} cannot be read safely: {reason}'
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(
            f'checkpoint {str(path)!r} is truncated or no checkpoint '
            f'({_first_line(error)}); fetch or write it again'
        ) from error
    return _split(content, path)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _split(content, path: Path) -> tuple[dict[str, Tensor], dict]:
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f'checkpoint {str(path)!r} holds a {type(content).__name__}, not '
            'a state dict'
        )
    meta = content.get('meta')
    for key in ('state_dict', 'model'):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise CheckpointError(f'checkpoint {str(path)!r} holds no tensors')
    return tensors, dict(meta) if isinstance(meta, Mapping) else {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, json.loads(header.get('meta', '{}'))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f'checkpoint {str(path)!r} is truncated or no safetensors file '
            f'({_first_line(error)}); fetch or write it again'
        ) from error


def check_suffix(path: str | Path) -> None:
    """Raise CheckpointError if no checkpoint can be written to a name."""
    if Path(path).suffix not in ('.pth', '.safetensors'):
        raise CheckpointError(
            'a checkpoint must be named *.pth or *.safetensors, but got '
            f'{str(path)!r}'
        )


def write_checkpoint(
    path: str | Path,
    state_dict: Mapping[str, Tensor],
    arch: Arch,
    **meta,
) -> None:
    """Write a checkpoint that carries its own shape.

    Args:
        path: Ends in ``.pth`` or ``.safetensors``.
        state_dict: Tensors under timm-style names.
        arch: Their shape.
        **meta: What else to note (builtin types), such as ``source`` and
            ``metrics``.
    """
    path = Path(path)
    check_suffix(path)
    tensors = {
        key: value.detach().cpu().contiguous()
        for key, value in state_dict.items()
    }
    meta = {'arch': arch.to_dict(), **meta}
    with replacing(path) as part:
        if path.suffix == '.safetensors':
            from safetensors.torch import save_file

            noted = {'format': 'pt', 'meta': json.dumps(meta)}
            save_file(tensors, part, noted)
        else:
            torch.save({'state_dict': tensors, 'meta': meta}, part)


def checkpoint_arch(meta: dict, path: str | Path = '') -> Arch | None:
    """The arch that a checkpoint carries, or None if it carries none."""
    arch = meta.get('arch')
    if arch is None:
        return None
    if not isinstance(arch, Mapping):
        raise CheckpointError(
            f'meta.arch of checkpoint {str(path)!r} must be a dict, but got '
            f'{type(arch).__name__}'
        )
    return arch_from_dict(arch)


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


def refuse_compactors(
    state_dict: Mapping[str, Tensor], path: str | Path
) -> None:
    """See that a checkpoint is no pruning run's, before it is taken for one
    of a plain model.

    Raises:
        CheckpointError: If it holds compactors.
    """
    if any(map(is_compactor, state_dict)):
        raise CheckpointError(
            f'checkpoint {str(path)!r} is of a run that prunes channels, and '
            'still holds the compactors: export it by '
            'tools/export_pruned.py and load the result'
        )


def load_strict(
    model: torch.nn.Module,
    state_dict: Mapping[str, Tensor],
    path: str | Path,
    may_miss: tuple[str, ...] = (),
    may_ignore: tuple[str, ...] = (),
) -> list[str]:
    """Load a state dict; anything that doesn't fit is an error naming it.

    Args:
        model: The model to fill.
        state_dict: What to fill it with.
        path: Where it came from, for messages.
        may_miss: Prefixes of parameters that may keep their initial values.
        may_ignore: Prefixes of tensors that the model may not have.

    Returns:
        The names that kept their initial values.

    Raises:
        CheckpointError: If a tensor is missing, unexpected or mis-shaped.
    """
    own = model.state_dict()
    if not any(map(is_compactor, own)):
        refuse_compactors(state_dict, path)
    missing = [k for k in own if k not in state_dict]
    forbidden = [k for k in missing if not k.startswith(may_miss)]
    extra = [k for k in state_dict if k not in own]
    unknown = [k for k in extra if not k.startswith(may_ignore)]
    for key, value in state_dict.items():
        if key in own and own[key].shape != value.shape:
            raise CheckpointError(
                f'checkpoint {str(path)!r} is of another arch: {key} is '
                f'{tuple(value.shape)}, but the model needs '
                f'{tuple(own[key].shape)}'
            )
    for kind, keys in (('lacks', forbidden), ('has unexpected', unknown)):
        if keys:
            more = f' and {len(keys) - 1} more' if len(keys) > 1 else ''
            raise CheckpointError(
                f'checkpoint {str(path)!r} is of another arch: it {kind} '
                f'{keys[0]}{more}'
            )
    model.load_state_dict(
        {**own, **{k: v for k, v in state_dict.items() if k in own}}
    )
    return missing
