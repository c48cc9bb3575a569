"""Putting another backbone into a config: what ``--backbone FILE`` does."""

from collections.abc import Iterator
from os.path import isfile
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config, ConfigDict

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.checkpoints.file import hold_checkpoint
from mmvitcompress.checkpoints.recognise import recognise
from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.utils.files import shipped

# How a config uses its backbone, whichever that is. All else tells what the
# backbone is, and goes with it.
USE = (
    *('img_size', 'out_indices', 'out_type', 'restore', 'restore_mode'),
    *('final_norm', 'out_norms', 'window_size', 'global_blocks'),
    *('drop_path_rate', 'frozen_stages', 'norm_eval', 'with_cp'),
)


class Maps(NamedTuple):
    """What a backbone returns.

    Attributes:
        channels: Of each map.
        strides: Pixels between two positions of each map.
    """

    channels: list[int]
    strides: list[int]

    def __str__(self):
        return f'{self.channels} channels at strides {self.strides}'


def find_backbone(name: str) -> Path:
    """The file that ``--backbone`` names: a path, or one of ours by its stem.

    Ours lie in configs/_base_/backbones of the repository, or of the wheel's
    ``.mim`` folder.

    Raises:
        ConfigError: If there is no such file.
    """
    if isfile(name):
        return Path(name)
    folder = shipped('configs/_base_/backbones') or Path()
    known = {path.stem: path for path in sorted(folder.glob('*.py'))}
    if name in known:
        return known[name]
    raise ConfigError(
        f'--backbone {name!r} is neither a file nor one of {", ".join(known)}'
    )


def run_name(config: str, backbone: str | None = None) -> str:
    """What to call a run of a config, with another backbone or its own."""
    parts = [config, backbone] if backbone else [config]
    return '-'.join(Path(part).stem for part in parts)


def replace_backbone(cfg: Config, file: Config, name: str) -> None:
    """Put the backbone of a file into a config.

    How the config uses its backbone (:data:`USE`) stays, unless the file says
    otherwise. What else the file holds is merged as a child's settings are.

    Args:
        cfg: The config.
        file: Sets ``backbone`` or ``model.backbone``.
        name: The file's name, for messages.

    Raises:
        ConfigError: If one of them has no backbone.
    """
    others = dict(file.items())
    settings = [
        others.pop('backbone', None),
        (others.get('model') or {}).pop('backbone', None),
    ]
    if not any(settings):
        raise ConfigError(
            f'--backbone {name!r} sets neither backbone nor model.backbone'
        )
    old = (cfg.get('model') or {}).get('backbone')
    if not old:
        raise ConfigError(
            f'--backbone {name!r} has nothing to replace: the config has no '
            'model.backbone'
        )
    new = ConfigDict({key: old[key] for key in USE if key in old})
    for each in settings:
        new.merge(each or {})
    cfg.merge_from_dict(others)
    cfg.model.backbone = ConfigDict(new)


def check_fit(cfg: Config, replaced: dict, name: str) -> None:
    """Refuse a backbone whose maps the rest of the model doesn't take.

    Args:
        cfg: The config, with the backbone and all overrides.
        replaced: The backbone that it had.
        name: What ``--backbone`` named, for messages.

    Raises:
        ConfigError: If the width, or the stride, is another.
    """
    given, before = maps_of(cfg.model.backbone), maps_of(replaced)
    if given is None:
        return
    channels, wanted = {*given.channels}, None
    for key, value in _taken(cfg.model):
        taken = {value} if isinstance(value, int) else {*value}
        # a neck takes all maps, a head maybe some of them
        fits = taken == channels if 'neck' in key else taken <= channels
        if not fits:
            wanted = f'its model.{key} is {value}'
            break
    else:
        if before and before.strides != given.strides:
            wanted = f'it is made for {before}'
    if wanted:
        raise ConfigError(
            f'--backbone {name!r} returns {given}, which does not fit '
            f'{cfg.filename}: {wanted}; choose a config that is made for '
            'such a backbone'
        )


def maps_of(backbone: dict) -> Maps | None:
    """The maps of one of our backbones, by its arch or else its checkpoint;
    None if neither tells."""
    try:
        named = backbone.get('arch')
        arch = get_arch(named) if named else _stored_arch(backbone)
    except (CheckpointError, ConfigError, TypeError):
        arch = None  # another library's, or building it will say why
    if arch is None:
        return None
    indices = backbone.get('out_indices')
    indices = range(4) if indices is None else indices
    indices = [indices] if isinstance(indices, int) else [*indices]
    if arch.family != 'swin':
        count = len(indices)
        return Maps([arch.embed_dim] * count, [arch.patch_size] * count)
    stages = range(len(arch.dims))
    if not set(indices) <= {*stages}:  # those of a ViT
        indices = stages
    return Maps(
        [arch.dims[i] for i in indices],
        [arch.patch_size * 2**i for i in indices],
    )


def _stored_arch(backbone: dict) -> Arch | None:
    stored = hold_checkpoint(backbone.get('checkpoint'))
    return stored and recognise(stored).with_arch().arch


def _taken(model: dict) -> Iterator[tuple[str, int | list[int]]]:
    """Channels that the neck or, where it takes any, the heads ask for."""
    for key in ('neck', *(key for key in model if key.endswith('head'))):
        parts = model.get(key) or []
        for part in parts if isinstance(parts, list) else [parts]:
            for name in ('embed_dim', 'in_channels'):
                if name not in part:
                    continue
                yield f'{key}.{name}', part[name]
                if key == 'neck':
                    return
