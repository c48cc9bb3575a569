"""Reading a config the way OpenMMLab's tools do, with one-line errors."""

import argparse
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from mmvitcompress.arch.zoo import ARCHS
from mmvitcompress.compat.versions import require
from mmvitcompress.engine.backbones import (
    check_fit,
    find_backbone,
    replace_backbone,
)
from mmvitcompress.errors import ConfigError, DependencyError, UserError
from mmvitcompress.registry import check_config

# what Runner reads from a config besides its own arguments
TOP_LEVEL = {
    *inspect.signature(Runner.__init__).parameters,
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}

BACKBONE_HELP = (
    'put another backbone into the config: a file, or the name of one in '
    'configs/_base_/backbones, such as cait_deit_s'
)


class OptionsAction(DictAction):
    """``--cfg-options KEY=VALUE ...``; reports what is no such pair."""

    def __call__(self, parser, namespace, values, option_string=None):
        for pair in values:
            if '=' not in pair:
                raise argparse.ArgumentError(
                    self, f'must be KEY=VALUE, but got {pair!r}'
                )
        super().__call__(parser, namespace, values, option_string)


def add_overrides(
    parser: argparse.ArgumentParser, help: str, backbones: str | None = None
) -> None:
    """Add ``--backbone`` and ``--cfg-options`` to a tool.

    Args:
        parser: The tool's.
        help: What its ``--cfg-options`` are for.
        backbones: What ``--backbone`` is for in a tool that takes several.
            Defaults to None: it takes one.
    """
    parser.add_argument(
        '--backbone',
        nargs='+' if backbones else None,
        metavar='FILE',
        help=backbones or BACKBONE_HELP,
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        metavar='KEY=VALUE',
        help=help,
    )


def use_scope(cfg: Config) -> None:
    """Find types as the config does: by its ``default_scope``, or ours."""
    init_default_scope(cfg.get('default_scope') or 'mmvitcompress')


def validation_loader(cfg: Config) -> dict:
    """The config's loader of validation (or else test) data.

    Raises:
        ConfigError: If it has none.
    """
    loader = cfg.get('val_dataloader') or cfg.get('test_dataloader')
    if not loader:
        raise ConfigError(
            'the config has no val_dataloader to take images from'
        )
    return loader


def read_config(
    path: str, options: dict | None = None, backbone: str | None = None
) -> Config:
    """Read a config file and override parts of it.

    Args:
        path: The file; what its ``custom_imports`` name is imported.
        options: Values by dotted key, such as ``{'model.neck.mode': 'x'}``.
        backbone: A file whose backbone takes the place of the config's before
            ``options`` apply, or the stem of one in configs/_base_/backbones;
            see :func:`~mmvitcompress.engine.backbones.replace_backbone`.
            Defaults to None: the config's own.

    Raises:
        ConfigError: If a file is missing or no config, if the backbone
            doesn't fit, if a type of ours is given what it doesn't take, or
            if an option names a top-level key that neither the config nor
            MMEngine knows.
        DependencyError: If a package that the config needs is missing or
            doesn't work here.
    """
    if not Path(path).is_file():
        raise ConfigError(f'config {path!r} not found')
    cfg = _read(path)
    replaced = (cfg.get('model') or {}).get('backbone')
    if backbone:
        file = _read(str(find_backbone(backbone)))
        with _merging(f'--backbone {backbone}'):
            replace_backbone(cfg, file, backbone)
    if options:
        _override(cfg, options)
    if backbone:
        check_fit(cfg, replaced, backbone)
    _import_what_it_needs(cfg)
    check_config(cfg)
    return cfg


def _read(path: str) -> Config:
    try:
        return Config.fromfile(path, import_custom_modules=False)
    except UserError:
        raise
    except Exception as error:  # a config is a program: anything may happen
        raise ConfigError(
            f'config {path!r} cannot be read: {_describe(error)}'
        ) from error


def _override(cfg: Config, options: dict) -> None:
    for key in options:
        head = key.split('.')[0]
        if head not in cfg and head not in TOP_LEVEL:
            raise ConfigError(
                f'--cfg-options {key}: the config has no {head!r}; it has '
                f'{", ".join(sorted(cfg.keys()))}'
            )
    with _merging(f'--cfg-options {" ".join(options)}'):
        for key, value in options.items():
            _open_arch(cfg, key, value)
        cfg.merge_from_dict(options)


def _open_arch(cfg: Config, key: str, value) -> None:
    """Let ``ARCH.KEY=…`` change an arch that the config only names."""
    outer, found, inner = key.partition('.arch')
    whole = not inner and isinstance(value, dict)
    if not found or not (whole or inner.startswith('.')):
        return
    node = cfg
    for name in outer.split('.'):
        node = node.get(name) if hasattr(node, 'get') else None
    named = node.get('arch') if hasattr(node, 'get') else None
    if isinstance(named, str) and (
        named in ARCHS or Path(named).suffix == '.json'
    ):
        node['arch'] = dict(base=named)


@contextmanager
def _merging(what: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ConfigError(
            f'{what} cannot be merged into the config: {_describe(error)}'
        ) from error


def _import_what_it_needs(cfg: Config) -> None:
    scope = cfg.get('default_scope') or 'mmengine'
    require('mmengine', *({scope} - {'mmengine', 'mmvitcompress'}))
    if not cfg.get('custom_imports'):
        return
    try:
        import_modules_from_strings(**cfg.custom_imports)
    except ImportError as error:
        raise DependencyError(
            f'custom_imports of the config failed: {_describe(error)}'
        ) from error


def _describe(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'
