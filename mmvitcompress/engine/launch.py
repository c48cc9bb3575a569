"""What tools/train.py and tools/test.py do to a config before it runs."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from mmvitcompress.compat.cpu_ddp import enable_cpu_ddp
from mmvitcompress.compat.deprecations import silence_log
from mmvitcompress.engine.backbone_flag import run_name
from mmvitcompress.engine.config import add_overrides, read_config
from mmvitcompress.engine.normalisation import warn_of_normalisation
from mmvitcompress.errors import ConfigError, DataError
from mmvitcompress.utils.cli import (
    from_worker,
    while_building,
    while_reading,
    while_storing,
)

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing share."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help='where to write logs and results; by default what the config '
        'says, else work_dirs/ and the names of config and --backbone',
    )
    parser.add_argument(
        '--no-pin-memory',
        action='store_true',
        help='do not keep batches in page-locked memory',
    )
    add_overrides(
        parser,
        'override parts of the config: model.backbone.drop_path_rate=0.1 '
        'or data.list="[(a,b),(c,d)]", quoted and without blanks',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes of a distributed run',
    )
    # older launchers pass it; torchrun sets LOCAL_RANK
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help='set by the launcher',
    )


def start(args: argparse.Namespace) -> Config:
    """Read the config that the arguments name, and start distribution.

    Raises:
        ConfigError: If an argument or the config is wrong.
        DependencyError: If a package that the config needs is missing.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options, args.backbone)
    cfg.launcher = args.launcher
    default = f'work_dirs/{run_name(args.config, args.backbone)}'
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default
    for name in LOADERS:
        loader = cfg.get(name) or {}
        if args.no_pin_memory and loader:
            loader['pin_memory'] = False
        if not loader.get('num_workers', 0) and loader:
            loader['persistent_workers'] = False  # else torch refuses
    enable_cpu_ddp(cfg, args.launcher)
    return cfg


def enable_amp(cfg: Config) -> None:
    """Train in mixed precision; ConfigError for a third kind of wrapper."""
    wrapper = cfg.get('optim_wrapper') or {}
    kind = wrapper.get('type', 'OptimWrapper')
    if kind == 'OptimWrapper':
        wrapper['type'] = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    elif kind != 'AmpOptimWrapper':
        raise ConfigError(
            "--amp needs optim_wrapper.type 'OptimWrapper' or "
            f"'AmpOptimWrapper', but got {kind!r}"
        )


def require_accelerator(what: str) -> None:
    """Raise ConfigError for mixed precision where there is only a CPU."""
    if get_device() not in ('cuda', 'npu', 'mlu', 'musa'):
        raise ConfigError(
            f'{what} needs CUDA, which is not available here; run without '
            'mixed precision'
        )


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate with the number of images per step; ConfigError
    if the config doesn't say what its rate is meant for."""
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise ConfigError(
            '--auto-scale-lr needs auto_scale_lr.base_batch_size, the images '
            'per step that the learning rate is meant for; add it to the '
            'config'
        )
    cfg.auto_scale_lr.enable = True


def add_training_hooks(cfg: Config) -> None:
    """Make the run exactly resumable and its loading strict."""
    hooks = cfg.setdefault('default_hooks', {})
    checkpoint = hooks.get('checkpoint', {'type': 'CheckpointHook'})
    if checkpoint and checkpoint['type'] == 'CheckpointHook':
        kind = 'mmvitcompress.AtomicCheckpointHook'
        hooks['checkpoint'] = {**checkpoint, 'type': kind}
    add_hook(cfg, 'ArchMetaHook')
    add_hook(cfg, 'AuxiliaryLossHook')
    add_hook(cfg, 'ClassificationCheckHook')
    add_hook(cfg, 'FiniteHook')
    add_hook(cfg, 'RNGStateHook')
    add_hook(cfg, 'StrictLoadHook', whole=bool(cfg.get('resume')))
    add_hook(cfg, 'ResumeCheckHook')
    if cfg.launcher != 'none':
        add_hook(cfg, 'MeanLossHook')


def add_hook(cfg: Config, name: str, **kwargs) -> None:
    """Add a hook of ours in place of any of that name."""
    kind = f'mmvitcompress.{name}'
    others = [
        hook for hook in cfg.get('custom_hooks') or [] if hook['type'] != kind
    ]
    cfg.custom_hooks = [*others, {'type': kind, **kwargs}]


def require_parts(cfg: Config, phase: str) -> None:
    """Raise ConfigError if a part to 'train' or 'test' with is missing."""
    needed = {
        'train': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
        'test': ('test_dataloader', 'test_cfg', 'test_evaluator'),
    }
    missing = [
        name for name in ('model', *needed[phase]) if cfg.get(name) is None
    ]
    if missing:
        raise ConfigError(
            f'the config cannot be used to {phase}: it has no '
            f'{", no ".join(missing)}'
        )


_PARTS = (
    *('work_dir', 'train_dataloader', 'val_dataloader', 'test_dataloader'),
    *('train_cfg', 'val_cfg', 'test_cfg', 'auto_scale_lr', 'optim_wrapper'),
    *('param_scheduler', 'val_evaluator', 'test_evaluator', 'default_hooks'),
    *('custom_hooks', 'load_from', 'resume', 'launcher', 'log_processor'),
    *('visualizer', 'default_scope', 'randomness'),
)


def build_runner(cfg: Config, model: nn.Module | None = None) -> Runner:
    """Build the runner that the config asks for.

    Args:
        cfg: The config.
        model: What to train; defaults to the config's model.
    """
    if model is not None:
        parts = {key: cfg[key] for key in _PARTS if key in cfg}
        runner = Runner(model, cfg=cfg, **parts)
    elif 'runner_type' in cfg:
        runner = RUNNERS.build(cfg)
    else:
        runner = Runner.from_cfg(cfg)
    silence_log(runner.logger)
    warn_of_normalisation(runner.model)
    return runner


@contextmanager
def naming_data_errors() -> Iterator[None]:
    """Turn what goes wrong with absent data into a one-line error.

    Raises:
        DataError: If a file isn't there while something is built from the
            config or data are read, also by a worker, or if a data set is
            empty.
        ConfigError: If data that can only be read in sequence have a sampler.
    """
    try:
        yield
    except DataError as error:
        if not from_worker(error):
            raise
        line = str(error).strip().splitlines()[-1]
        raise DataError(line.partition(': ')[2]) from error
    except FileNotFoundError as error:
        if not (while_building(error) or while_reading(error)):
            raise
        line = str(error).strip().splitlines()[-1]
        raise DataError(
            f'{line.removeprefix("FileNotFoundError: ")}; check data_root '
            'and the data set'
        ) from error
    except ValueError as error:
        # torch has one type for all that it refuses of a loader
        if 'expected unspecified sampler option' in str(error):
            raise ConfigError(
                'data that are read in sequence need no sampler: set '
                'sampler=None in their dataloader'
            ) from error
        if not while_storing(error):  # which MMEngine's can't if it is empty
            raise
        raise DataError(
            'a data set holds no images; check data_root, data_prefix and '
            'the suffixes'
        ) from error
