"""The models to measure, and what they can be compared at."""

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from mmvitcompress.analysis.configs import (
    Shape,
    as_shape,
    default_shape,
)
from mmvitcompress.analysis.inference import padded_shape
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.engine.build import build
from mmvitcompress.engine.config import read_config
from mmvitcompress.errors import ConfigError
from mmvitcompress.planning import plan_arch
from mmvitcompress.tokens import METHODS


def build_candidate(
    config: Config, checkpoint: str | None = None
) -> nn.Module:
    """Build a config's model as it would be deployed, with the weights of
    ``checkpoint`` or the config's ``load_from``."""
    if checkpoint is None:
        checkpoint = config.get('load_from')
    return build(config, checkpoint, 'measure')


def with_method(
    config: Config, method: str, target: float, shape: Sequence[int] | None
) -> Config:
    """A config whose backbone reduces tokens by one method, and no other.

    Args:
        config: Of a model with a backbone of ours that names its ``arch``.
        method: Key of the token method, see
            :data:`~mmvitcompress.tokens.METHODS`.
        target: What it saves, as a fraction of the dense backbone's MACs; the
            planner finds its arguments.
        shape: The image size that this is counted at. Defaults to what the
            config tells.

    Raises:
        ConfigError: If the target is out of reach, or there is no such arch.
    """
    config = copy.deepcopy(config)
    backbone = (config.get('model') or {}).get('backbone') or {}
    if backbone.get('arch') is None:
        raise ConfigError(
            f'{method} is planned for an arch, but the backbone '
            f'{backbone.get("type")} names none: take a dense config of ours'
        )
    size = as_shape(shape) if shape else default_shape(config)
    arch = get_arch(backbone.arch)
    found = plan_arch(arch, target, size, method=method)
    backbone.update({key: None for key in METHODS if key in backbone})
    backbone.update(found.config())
    return config


def write_rows(
    path: str, folder: Path, chosen: Sequence[str] | None = None
) -> list[Path]:
    """Write the configs of a table's rows, the baseline's first.

    Args:
        path: Config with ``baseline``, a config's path from there; ``rows``,
            what each named row changes in it; and, if wanted, ``common``,
            what all rows change, the baseline's too. A row with ``method``,
            a key of :data:`~mmvitcompress.tokens.METHODS`, gets the arguments
            with which that saves ``target``, of the row or the table, as a
            fraction of the MACs; what it says of the method itself goes
            before them.
        folder: Where the configs go, each called as its row.
        chosen: Names of the rows to write. Defaults to all.

    Returns:
        Their paths.

    Raises:
        ConfigError: If the table or a row of it is wrong, or its target out
            of reach.
    """
    table = read_config(path)
    rows = table.get('rows')
    if not isinstance(rows, Mapping) or not isinstance(
        table.get('baseline'), str
    ):
        raise ConfigError(
            f'{path} must be a table, with the path of a baseline and a dict '
            f'of rows, but has {", ".join(table.keys()) or "nothing"}'
        )
    rows = {str(name): row for name, row in rows.items()}
    lacking = sorted(set(chosen or ()) - set(rows))
    if lacking:
        raise ConfigError(
            f'{path} has no row {", ".join(lacking)}; choose from '
            f'{", ".join(rows)}'
        )
    baseline = Path(path).parent / table.baseline
    base = read_config(str(baseline))
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, Path] = {}
    common = table.get('common', ConfigDict())
    changes = {name: rows[name] for name in chosen or rows}
    for name, row in [(baseline.stem, common), *changes.items()]:
        if not re.fullmatch(r'\w[\w.+-]*', name) or name in written:
            raise ConfigError(
                f'{path}: a row must have a name of its own of letters, '
                f'digits, _, ., + and -, but got {name!r}'
            )
        file = folder / f'{name}.py'
        try:
            config = _changed(base, row, table.get('target'))
            lines = [f'{k} = {v!r}' for k, v in config.to_dict().items()]
            file.write_text('\n'.join(lines), encoding='utf-8')
            read_config(str(file))
        except (ConfigError, TypeError, KeyError) as error:
            raise ConfigError(f'{path}, row {name}: {error}') from error
        if not written:
            base = config  # with what all rows change
        written[name] = file
    return list(written.values())


def _changed(base: Config, row: ConfigDict, target: float | None) -> Config:
    if not isinstance(row, ConfigDict):
        raise ConfigError(
            f'what changes must be a dict, as --cfg-options, but got {row!r}'
        )
    row = row.to_dict()  # builtin containers, as options are
    method = row.pop('method', None)
    target = row.pop('target', target)
    if method is None:
        config = copy.deepcopy(base)
    elif target is None:
        raise ConfigError(f'method={method!r} needs a target')
    else:
        config = with_method(base, method, target, None)
    config.merge_from_dict(row)
    return config


def common_shape(
    configs: Sequence[Config],
    models: Sequence[nn.Module],
    shape: Sequence[int] | None = None,
) -> Shape:
    """The image size, before padding, at which models are compared: ``shape``
    or else what their configs tell.

    Raises:
        ConfigError: If the configs tell different sizes, or the models pad to
            different ones.
    """
    shapes = [as_shape(shape)] if shape else list(map(default_shape, configs))
    if len(set(shapes)) > 1:
        raise ConfigError(
            f'the configs tell different sizes, {shapes}; give one by --shape'
        )
    padded = {padded_shape(model, shapes[0]) for model in models}
    if len(padded) > 1:
        raise ConfigError(
            f'the models pad {shapes[0]} differently, to {sorted(padded)}; '
            'give a --shape that none of them pads'
        )
    return shapes[0]


def choose_device(name: str | None) -> torch.device:
    """The device to run on: CUDA if there is one and none is named.

    Raises:
        ConfigError: If the one that is named can't be used.
    """
    if name is None:
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f'device {name!r} cannot be used ({reason}); choose another'
        ) from error
    return device
