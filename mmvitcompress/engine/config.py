"""Reading a config the way OpenMMLab's tools do, with one-line errors."""

import argparse
import inspect
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from mmvitcompress.compat.versions import require
from mmvitcompress.errors import ConfigError, DependencyError, UserError

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


class OptionsAction(DictAction):
    """``--cfg-options KEY=VALUE ...``; reports what is no such pair."""

    def __call__(self, parser, namespace, values, option_string=None):
        for pair in values:
            if '=' not in pair:
                raise argparse.ArgumentError(
                    self, f'must be KEY=VALUE, but got {pair!r}'
                )
        super().__call__(parser, namespace, values, option_string)


def add_cfg_options(parser: argparse.ArgumentParser, help: str) -> None:
    """Add ``--cfg-options`` to a tool."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        metavar='KEY=VALUE',
        help=help,
    )


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


def read_config(path: str, options: dict | None = None) -> Config:
    """Read a config file and override parts of it.

    Args:
        path: The file; what its ``custom_imports`` name is imported.
        options: Values by dotted key, such as ``{'model.neck.mode': 'x'}``.

    Raises:
        ConfigError: If the file is missing or no config, or if an option
            names a top-level key that neither the config nor MMEngine knows.
        DependencyError: If a package that the config needs is missing or
            doesn't work here.
    """
    if not Path(path).is_file():
        raise ConfigError(f'config {path!r} not found')
    try:
        cfg = Config.fromfile(path, import_custom_modules=False)
    except UserError:
        raise
    except Exception as error:  # a config is a program: anything may happen
        raise ConfigError(
            f'config {path!r} cannot be read: {_describe(error)}'
        ) from error
    if options:
        _override(cfg, options)
    _import_what_it_needs(cfg)
    return cfg


def _override(cfg: Config, options: dict) -> None:
    for key in options:
        head = key.split('.')[0]
        if head not in cfg and head not in TOP_LEVEL:
            raise ConfigError(
                f'--cfg-options {key}: the config has no {head!r}; it has '
                f'{", ".join(sorted(cfg.keys()))}'
            )
    try:
        cfg.merge_from_dict(options)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        keys = ' '.join(options)
        raise ConfigError(
            f'--cfg-options {keys} cannot be merged into the config: '
            f'{_describe(error)}'
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
