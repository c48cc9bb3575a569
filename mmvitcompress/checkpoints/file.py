"""Checkpoints: one small file that carries its own shape.

``{'state_dict': timm-style keys, 'meta': {'arch': {...}, ...}}`` holds only
tensors and builtin types. As ``.safetensors`` the same meta data stands as
JSON in the file's header.
"""

import hashlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.zoo import arch_from_dict
from mmvitcompress.channels.compactors import is_compactor
from mmvitcompress.checkpoints.reading import fetched, read_content
from mmvitcompress.errors import CheckpointError, MissingCheckpointError
from mmvitcompress.utils.files import replacing

# where scripts keep a model, by what is taken first: DINO and iBOT evaluate
# the teacher, DeiT the model rather than its average
_PLACES = ('state_dict', 'model', 'teacher', 'module', 'model_ema')
_PLACES += ('state_dict_ema', 'ema', 'student', 'net', 'encoder', 'backbone')
# of DistributedDataParallel and its likes, of torch.compile
_WRAPPERS = re.compile(r'^((_orig_mod|module)\.)+|(?<=\.)_orig_mod\.')


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file holds.

    Attributes:
        path: The file, for messages.
        content: All of it, as it was stored.
        state_dict: The model's tensors, under the file's names.
        meta: The meta data; {} if there is none.
        notes: What was assumed in reading it, lines for a log.
    """

    path: str
    content: Mapping
    state_dict: dict[str, Tensor]
    meta: dict
    notes: tuple[str, ...] = ()

    @property
    def arch(self) -> Arch | None:
        """The arch that it carries, or None if it carries none.

        Raises:
            CheckpointError: If that is no dict, or larger than the tensors.
            ConfigError: If it has wrong values.
        """
        content = self.noted('arch')
        if not content:
            return None
        tensors = self.state_dict.values()
        held = sum(x.numel() for x in tensors if isinstance(x, Tensor))
        held = max(held, 10_000)  # images may be larger than tiny models
        # before anything of that size is made; not all blocks need be there
        excess = [(k, size) for k, size in _numbers(content) if size > held]
        if not excess:
            arch = arch_from_dict(content)
            if arch.params() <= 1000 * held:
                return arch
            excess = [('params', arch.params())]
        name, size = excess[0]
        raise CheckpointError(
            f'meta.arch of checkpoint {self.path!r} has {name} = {size}, more '
            f'than its tensors explain ({held} values); write it again'
        )

    def noted(self, name: str) -> dict:
        """A dict of the meta data; {} if there is none.

        Raises:
            CheckpointError: If it is something else.
        """
        value = self.meta.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise CheckpointError(
                f'meta.{name} of checkpoint {self.path!r} must be a dict, but '
                f'got {type(value).__name__}'
            )
        return dict(value or {})

    @property
    def whole(self) -> bool:
        """Whether it is a whole model's, rather than only a backbone's."""
        return any(name.startswith('backbone.') for name in self.state_dict)

    @property
    def pruning(self) -> bool:
        """Whether it is of a run that prunes channels, compactors and all."""
        return any(map(is_compactor, self.state_dict))


def _numbers(content: Mapping) -> Iterator[tuple[str, int]]:
    for name, value in content.items():
        values = value if isinstance(value, list | tuple) else [value]
        for size in values:
            if isinstance(size, int):
                yield name, size


# a file that someone still holds is not read again
_HELD: WeakValueDictionary[tuple, Checkpoint] = WeakValueDictionary()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours, or of whoever wrote it.

    While the result is in use, reading the file again gives it again: its
    tensors are not to be changed in place.

    Args:
        path: Safetensors, or what ``torch.save`` wrote; a URL is downloaded,
            once.

    Raises:
        MissingCheckpointError: If there is no such file.
        CheckpointError: If it is damaged, none, or more than data.
    """
    if not isinstance(path, str | Path) or path == '':
        raise CheckpointError(
            f'checkpoint must be the path of a file, but got {path!r}'
        )
    source = str(path)
    path = fetched(source) if '://' in source else Path(path)
    if not os.path.isfile(path):
        kind = 'not found; give the path of a file'
        if os.path.isdir(path):
            kind = 'is a folder; give a file in it, as model.safetensors'
        raise MissingCheckpointError(f'checkpoint {source!r} {kind}')
    stat = path.stat()
    key = (str(path.absolute()), stat.st_ino, stat.st_mtime_ns, stat.st_size)
    held = _HELD.get(key)
    if held is None:
        held = _HELD[key] = _unwrapped(read_content(path), source)
    return held


def hold_checkpoint(path: str | Path | None) -> Checkpoint | None:
    """Read a file for others that will read it, too, while this is in use;
    None if there is none: who needs it knows what to say."""
    try:
        return None if path is None else read_checkpoint(path)
    except MissingCheckpointError:
        return None


def _unwrapped(content: object, path: str) -> Checkpoint:
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f'checkpoint {path!r} holds a {type(content).__name__}, not a '
            'state dict'
        )
    state_dict, notes = _model_in(content, path)
    tensors = OrderedDict()
    for key, value in state_dict.items():
        if isinstance(value, Tensor):
            _check_tensor(key, value, path)
            tensors[_WRAPPERS.sub('', key)] = value
    # by which modules convert what older versions of themselves have written
    versions = getattr(state_dict, '_metadata', OrderedDict())
    tensors._metadata = versions
    meta = content.get('meta')
    meta = dict(meta) if isinstance(meta, Mapping) else {}
    stored = meta.pop('checksum', None)
    if stored is not None and stored != _checksum(state_dict, meta):
        raise CheckpointError(
            f'checkpoint {path!r} is not as it was written: its checksum '
            "differs; fetch it again (whoever changed it deletes meta's "
            'checksum)'
        )
    archs = [m['arch'] for m in versions.values() if 'arch' in m]
    if archs:  # as our backbones note it, whoever saves them
        meta.setdefault('arch', archs[0])
    return Checkpoint(path, content, tensors, meta, tuple(notes))


def _model_in(content: Mapping, path: str) -> tuple[Mapping, list[str]]:
    """The state dict in what a script has saved, and what was assumed."""
    for _ in range(4):
        known = [key for key in _PLACES if _leads(content.get(key))]
        if not known and any(isinstance(v, Tensor) for v in content.values()):
            return content, []
        inner = known or [key for key in content if _leads(content[key])]
        if not known and len(inner) != 1:
            break
        content = content[inner[0]]
        if len(inner) > 1:
            note = (
                f'{path} holds {" and ".join(inner)}: {inner[0]} is taken; '
                'save another one alone to take that'
            )
            return _model_in(content, path)[0], [note]
    keys = ', '.join(map(str, content))[:200] or '(none)'
    raise CheckpointError(
        f'checkpoint {path!r} holds no tensors of one model, but the keys '
        f'{keys}; save its state dict alone'
    )


def _leads(value: object, depth: int = 2) -> bool:
    """Whether there are weights in a dict, or in a dict of it."""
    return isinstance(value, Mapping) and any(
        (isinstance(inner, Tensor) and str(key).endswith('weight'))
        or (depth and _leads(inner, depth - 1))
        for key, inner in value.items()
    )


def _check_tensor(key: object, value: Tensor, path: str) -> None:
    problem = ''
    if not isinstance(key, str):
        problem = 'under a key that is no name'
    elif value.layout is not torch.strided or value.is_quantized:
        problem = 'that is sparse or quantized'
    elif value.is_meta:
        problem = 'without its values'
    if problem:
        raise CheckpointError(
            f'checkpoint {path!r} holds a tensor {key!r} {problem}; write it '
            'again as a plain state dict'
        )


def _checksum(state_dict: Mapping, meta: Mapping) -> str:
    """SHA-256 of names, types, shapes and values, and of the meta data."""
    digest = hashlib.sha256(
        json.dumps(meta, sort_keys=True, default=repr).encode()
    )
    for key, value in sorted(state_dict.items()):
        digest.update(f'{key} {value.dtype} {tuple(value.shape)}'.encode())
        values = value.detach().cpu().contiguous().flatten()
        digest.update(values.view(torch.uint8).numpy())
    return digest.hexdigest()


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
        **meta: What else to note, of builtin types.
    """
    path = Path(path)
    check_suffix(path)
    tensors = {
        key: value.detach().cpu().contiguous()
        for key, value in state_dict.items()
    }
    meta = {'arch': arch.to_dict(), **meta}
    meta['checksum'] = _checksum(tensors, meta)
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
    """Raise CheckpointError if tensors are a pruning run's, to be taken for
    those of a plain model."""
    if any(map(is_compactor, state_dict)):
        raise CheckpointError(
            f'checkpoint {str(path)!r} is of a run that prunes channels, and '
            'still holds the compactors: export it by '
            'tools/export_pruned.py and load the result'
        )
