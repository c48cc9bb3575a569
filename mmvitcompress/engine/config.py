"""Reading a config the way OpenMMLab's tools do, with one-line errors."""

import argparse
import inspect
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from mmvitcompress.arch.zoo import ARCHS
from mmvitcompress.compat.versions import require
from mmvitcompress.engine.backbone_flag import (
    check_fit,
    find_backbone,
    replace_backbone,
)
from mmvitcompress.errors import ConfigError, DependencyError, UserError
from mmvitcompress.registry import check_config
from mmvitcompress.utils.checks import (
    check_at_least_zero,
    check_choice,
    check_positive,
)
from mmvitcompress.utils.cli import shortened

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

# what Runner takes apart before it knows what it has
_KINDS = {
    dict: (
        'model train_dataloader val_dataloader test_dataloader train_cfg '
        'val_cfg test_cfg optim_wrapper auto_scale_lr default_hooks env_cfg '
        'log_processor visualizer randomness custom_imports'
    ),
    str: 'default_scope load_from work_dir launcher log_level',
    bool: 'resume',
    (dict, list, tuple): 'param_scheduler val_evaluator test_evaluator',
    (list, tuple): 'custom_hooks',
}
_WORDS = {dict: 'a dict', str: 'a string', bool: 'True or False'}

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

    ``help`` says what the latter are for; ``backbones`` what the former is for
    in a tool that takes several. Defaults to None: it takes one.
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
    """The config's loader of validation, or else test data; ConfigError if it
    has none."""
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
            see :func:`~mmvitcompress.engine.backbone_flag.replace_backbone`.
            Defaults to None: the config's own.

    Raises:
        ConfigError: If a file is missing or no config, if the backbone
            doesn't fit, if a type of ours is given what it doesn't take, or
            if an option names a top-level key that neither the config nor
            MMEngine knows.
        DependencyError: If a package that the config needs is missing or
            doesn't work here.
    """
    if not os.path.isfile(path):
        raise ConfigError(
            f'config {shortened(path)!r} not found: give the path of a file'
        )
    cfg = _read(path)
    if backbone:
        replaced = (cfg.get('model') or {}).get('backbone')
        file = _read(str(find_backbone(backbone)))
        with _merging(f'--backbone {backbone}'):
            replace_backbone(cfg, file, backbone)
    if options:
        _override(cfg, options)
    if backbone:
        check_fit(cfg, replaced, backbone)
    check_settings(cfg)
    _import_what_it_needs(cfg)
    check_config(cfg)
    return cfg


def check_settings(cfg: Config) -> None:
    """Check what MMEngine trips over without saying what it is about.

    Raises:
        ConfigError: If a value is of another kind, or out of range.
    """
    for kind, names in _KINDS.items():
        for name in names.split():
            value = cfg.get(name)
            if value is not None and not isinstance(value, kind):
                wanted = _WORDS.get(kind, 'a list')
                raise ConfigError(
                    f'{name} must be {wanted}, but got {value!r}'
                )
    model = cfg.get('model') or {}
    for name in {'backbone', 'decode_head'} & model.keys():
        if not isinstance(model[name], dict | list):
            raise ConfigError(
                f'model.{name} must be a dict, but got {model[name]!r}'
            )
    for hook in cfg.get('custom_hooks') or []:
        if not isinstance(hook, dict):
            raise ConfigError(f'custom_hooks must be dicts, but got {hook!r}')
    level = cfg.get('log_level', 'INFO')
    check_choice('log_level', level, list(logging.getLevelNamesMapping()))
    loop = cfg.get('train_cfg') or {}
    for name in {'max_iters', 'max_epochs', 'val_interval'} & loop.keys():
        if loop[name] is not None:
            check_positive(f'train_cfg.{name}', loop[name])
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader') or {}
        if loader.get('batch_size') is not None:
            name = f'{split}_dataloader.batch_size'
            check_positive(name, loader['batch_size'])
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    for name in {'lr', 'weight_decay'} & optimizer.keys():
        check_at_least_zero(f'optim_wrapper.optimizer.{name}', optimizer[name])
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**32):
        raise ConfigError(
            'randomness.seed must be a whole number from 0 to 2**32 - 1, or '
            f'None to draw one, but got {seed!r}'
        )


def _read(path: str) -> Config:
    try:
        return Config.fromfile(path, import_custom_modules=False)
    except UserError:
        raise
    except Exception as error:  # a config is a program: anything may happen
        raise ConfigError(
            f'config {path!r} cannot be read: {_describe(error)}; correct it'
        ) from error


def _override(cfg: Config, options: dict) -> None:
    for key in options:
        head = key.split('.')[0]
        if head not in cfg and head not in TOP_LEVEL:
            raise ConfigError(
                f'--cfg-options {key}: the config has no {head!r}; take '
                f'one of {", ".join(sorted(cfg.keys()))}'
            )
        if head not in TOP_LEVEL:
            used = [n for n in TOP_LEVEL if n in cfg]
            places = [
                place
                for name in sorted(used)
                for place in _places(cfg[name], cfg[head], name)
            ]
            raise ConfigError(
                f'--cfg-options {key}: nothing reads {head} any more once the '
                'config was read; override what it went into'
                + (f', such as {", ".join(places[:5])}' if places else '')
            )
    with _merging(f'--cfg-options {" ".join(options)}'):
        for key, value in options.items():
            _open_arch(cfg, key, value)
        cfg.merge_from_dict(options)


def _places(part: object, value: object, name: str) -> Iterator[str]:
    """Dotted keys of what equals ``value``, within a part of a config."""
    if isinstance(value, dict | list | tuple) and part == value:
        yield name
    elif isinstance(part, dict | list | tuple):
        pairs = part.items() if isinstance(part, dict) else enumerate(part)
        for key, inner in pairs:
            yield from _places(inner, value, f'{name}.{key}')
    elif part == value and isinstance(value, str):
        yield name


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
    if isinstance(named, str) and (named in ARCHS or named.endswith('.json')):
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
