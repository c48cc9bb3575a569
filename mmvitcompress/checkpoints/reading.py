"""Read what ``torch.save`` and safetensors have written; run nothing of it.

A file is told by its first bytes, not by its name.
"""

import argparse
import json
import pickle
import re
import sys
import zlib
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

import torch

from mmvitcompress import compat
from mmvitcompress.errors import CheckpointError

_SAFE_CLASSES = [argparse.Namespace]  # DeiT's training script saves its flags
_OTHERS = (
    (rb'\s*<(!doctype|html|\?xml)', 'a web page'),
    (rb'version https://git-lfs', 'a pointer of Git LFS, not the file itself'),
    (rb'\x89HDF', 'an HDF5 file of Keras or TensorFlow'),
    (rb'\x1f\x8b', 'a gzip archive'),
    (rb'PK.{28,120}\.npy', 'an archive of NumPy, as JAX writes them'),
    (rb'\Z', 'an empty file'),
)


def read_content(path: Path) -> object:
    """What a file holds, on the CPU.

    Raises:
        CheckpointError: If it is truncated, no checkpoint, or holds more than
            data.
    """
    try:
        with path.open('rb') as file:
            start = file.read(512)
    except OSError as error:
        raise CheckpointError(
            f'checkpoint {str(path)!r} cannot be read: {error.strerror}'
        ) from error
    for pattern, kind in _OTHERS:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            raise CheckpointError(
                f'checkpoint {str(path)!r} is {kind}; fetch the checkpoint '
                'itself'
            )
    pickled = start[:1] == b'\x80' or start[:2] == b'PK'
    headed = start[8:9] == b'{' and not start[7]
    if headed or (path.suffix == '.safetensors' and not pickled):
        return _read_safetensors(path)
    if re.fullmatch(rb'[\t\r\n -~]+', start):
        line = start.decode().strip().partition('\n')[0][:40]
        raise CheckpointError(
            f'checkpoint {str(path)!r} is a text file, which starts with '
            f'{line!r}; give the file of the weights'
        )
    return _read_pickle(path)


def _load(path: Path) -> object:
    load = partial(torch.load, path, map_location='cpu', weights_only=True)
    if path.suffix == '.safetensors':  # torch would go by the name
        load = partial(load.func, BytesIO(path.read_bytes()), **load.keywords)
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
        # torch's own text advises to switch safety off; it has one type for
        # what is more than data and for what is no pickle
        found = re.search(r'(?:GLOBAL|class|type) `?([\w.]+)', _cause(error))
        if found:
            raise CheckpointError(
                f'checkpoint {str(path)!r} cannot be read safely: it holds '
                f'{found[1]}, more than tensors and builtin types, and might '
                'run code; where it was made, save its state dict alone'
            ) from error
        raise _damaged(path, 'no pickle of torch.save') from error
    except Exception as error:  # a damaged pickle may raise any
        raise _damaged(path, _first_line(error)) from error


def _cause(error: Exception) -> str:
    """What torch says of a file, after its advice."""
    return re.sub(r'(?s)^Weights only.*?trusted source\.', '', str(error))


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f'checkpoint {str(path)!r} is truncated or no checkpoint ({reason}); '
        'fetch or write it again'
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _read_safetensors(path: Path) -> dict:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        meta = json.loads(header.get('meta', '{}'))
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise CheckpointError(
            f'checkpoint {str(path)!r} is truncated or no safetensors file '
            f'({_first_line(error)}); fetch or write it again'
        ) from error
    return dict(state_dict=tensors, meta=meta)


def fetched(source: str) -> Path:
    """The file of a URL, downloaded once into torch's cache.

    Args:
        source: ``https://…``, or an address of OpenMMLab's own, such as
            ``torchvision://…``, if MMEngine is there.

    Raises:
        CheckpointError: If it can't be downloaded, or nobody knows such
            addresses.
    """
    url = _address(source)
    name = Path(urlsplit(url).path).name
    digest = torch.hub.HASH_REGEX.search(name)
    if not digest:  # many a file is called model.pth
        name = f'{zlib.crc32(url.encode()):08x}_{name}'
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    path = folder / name
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            url, str(path), digest and digest[1], progress=False
        )
    except (URLError, OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f'checkpoint {source!r} could not be downloaded '
            f'({type(error).__name__}: {_first_line(error)}); fetch it where '
            'there is a network and give the file instead'
        ) from error
    return path


def _address(source: str) -> str:
    scheme, _, name = source.partition('://')
    if scheme in ('http', 'https'):
        return source
    known = {}
    if find_spec('mmengine') is not None:
        from mmengine.runner import checkpoint as of_mmengine

        makers = {
            'torchvision': of_mmengine.get_torchvision_models,
            'modelzoo': of_mmengine.get_torchvision_models,
            'open-mmlab': of_mmengine.get_external_models,
            'openmmlab': of_mmengine.get_external_models,
            'mmcls': of_mmengine.get_mmcls_models,
        }
        known = makers[scheme]() if scheme in makers else {}
    url = known.get(name, '')
    if not url.startswith(('http://', 'https://')):
        raise CheckpointError(
            f'checkpoint {source!r} is at no address that can be downloaded; '
            'give https://…, or fetch it and give the file'
        )
    return url
