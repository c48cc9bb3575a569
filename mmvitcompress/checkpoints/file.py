"""Checkpoints: one small file that carries its own shape.

``{'state_dict': timm-style keys, 'meta': {'arch': {...}, ...}}`` holds only
tensors and builtin types, so that ``torch.load(weights_only=True)`` reads it.
As ``.safetensors`` the same meta data stands as JSON in the file's header.
Reading never runs code from a file; loading is strict.
"""

import argparse
import json
import pickle
import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from mmvitcompress import compat
from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.zoo import arch_from_dict
from mmvitcompress.channels.compactors import is_compactor
from mmvitcompress.errors import CheckpointError, MissingCheckpointError
from mmvitcompress.utils.files import replacing

_SAFE_CLASSES = [argparse.Namespace]  # DeiT's training script saves its flags


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file holds.

    Attributes:
        path: The file, for messages.
        content: All of it, as it was stored.
        state_dict: The model's tensors, under the file's names.
        meta: The meta data; {} if there is none.
    """

    path: str
    content: Mapping
    state_dict: dict[str, Tensor]
    meta: dict

    @property
    def arch(self) -> Arch | None:
        """The arch that it carries, or None if it carries none.

        Raises:
            CheckpointError: If that is no dict.
            ConfigError: If it has wrong values.
        """
        arch = self.meta.get('arch')
        if arch is None:
            return None
        if not isinstance(arch, Mapping):
            raise CheckpointError(
                f'meta.arch of checkpoint {self.path!r} must be a dict, but '
                f'got {type(arch).__name__}'
            )
        return arch_from_dict(arch)

    @property
    def whole(self) -> bool:
        """Whether it is a whole model's, rather than only a backbone's."""
        return any(name.startswith('backbone.') for name in self.state_dict)

    @property
    def pruning(self) -> bool:
        """Whether it is of a run that prunes channels, compactors and all."""
        return any(map(is_compactor, self.state_dict))


# a file that someone still holds is not read again
_HELD: WeakValueDictionary[tuple, Checkpoint] = WeakValueDictionary()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint file of ours, of timm, DeiT or MMEngine.

    As long as the result is in use, reading the same file gives it again. Its
    tensors are shared and not to be changed in place.

    Args:
        path: ``.safetensors``, or anything that ``torch.save`` wrote.

    Raises:
        MissingCheckpointError: If there is no such file.
        CheckpointError: If it is truncated, no checkpoint, or holds more than
            data.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingCheckpointError(f'checkpoint {str(path)!r} not found')
    stat = path.stat()
    key = (str(path.absolute()), stat.st_ino, stat.st_mtime_ns, stat.st_size)
    held = _HELD.get(key)
    if held is None:
        suffixed = path.suffix == '.safetensors'
        content = (_read_safetensors if suffixed else _read_pickle)(path)
        held = _HELD[key] = _recognised(content, str(path))
    return held


def hold_checkpoint(path: str | Path | None) -> Checkpoint | None:
    """Read a file for others that will read it, too, while this is in use.

    Returns:
        None if there is none: who needs the file knows what to say.
    """
    try:
        return None if path is None else read_checkpoint(path)
    except MissingCheckpointError:
        return None


def _load(path: Path) -> object:
    load = partial(torch.load, path, map_location='cpu', weights_only=True)
    try:
        return load()
    except pickle.UnpicklingError:
        # it may be of MMEngine, whose classes nobody has asked for yet
        if 'mmengine' in sys.modules or find_spec('mmengine') is None:
            raise
        compat.install()
        return load()


def _read_pickle(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(_SAFE_CLASSES):
            return _load(path)
    except pickle.UnpicklingError as error:
        reason = _first_line(error)
        # torch has no class of its own for what it refuses
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


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _recognised(content: object, path: str) -> Checkpoint:
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f'checkpoint {path!r} holds a {type(content).__name__}, not a '
            'state dict'
        )
    state_dict = content
    for key in ('state_dict', 'model'):
        if isinstance(state_dict.get(key), Mapping):
            state_dict = state_dict[key]
    tensors = OrderedDict(
        (key.removeprefix('module.'), value)  # of DistributedDataParallel
        for key, value in state_dict.items()
        if isinstance(value, Tensor)
    )
    if not tensors:
        raise CheckpointError(f'checkpoint {path!r} holds no tensors')
    # by which modules convert what older versions of themselves have written
    tensors._metadata = getattr(state_dict, '_metadata', OrderedDict())
    meta = content.get('meta')
    meta = dict(meta) if isinstance(meta, Mapping) else {}
    return Checkpoint(path, content, tensors, meta)


def _read_safetensors(path: Path) -> dict:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        meta = json.loads(header.get('meta', '{}'))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f'checkpoint {str(path)!r} is truncated or no safetensors file '
            f'({_first_line(error)}); fetch or write it again'
        ) from error
    return dict(state_dict=tensors, meta=meta)


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


def refuse_compactors(
    state_dict: Mapping[str, Tensor], path: str | Path
) -> None:
    """See that tensors are no pruning run's, before they are taken for those
    of a plain model.

    Raises:
        CheckpointError: If there are compactors among them.
    """
    if any(map(is_compactor, state_dict)):
        raise CheckpointError(
            f'checkpoint {str(path)!r} is of a run that prunes channels, and '
            'still holds the compactors: export it by '
            'tools/export_pruned.py and load the result'
        )
