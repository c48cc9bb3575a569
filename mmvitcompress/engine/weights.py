"""Which weights a run starts from, or tests."""

import re

from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader, load_from_local

from mmvitcompress.checkpoints.file import Checkpoint, read_checkpoint
from mmvitcompress.engine.build import fit, fit_start, load_stored
from mmvitcompress.engine.hooks.atomic_checkpoint import find_resumable
from mmvitcompress.engine.hooks.loading import refuse_unresumable
from mmvitcompress.engine.launch import add_hook, build_runner
from mmvitcompress.engine.wrappers import unwrapped


def choose_weights(cfg: Config, resume: str | None) -> None:
    """Settle what training starts from.

    Args:
        cfg: Its ``resume``, ``load_from`` and seed are set.
        resume: A checkpoint to resume from; 'auto' for the newest in the work
            dir, from scratch if there is none; None for what the config says.

    Raises:
        CheckpointError: If a checkpoint is missing, cannot be read, or can't
            be gone on with.
    """
    if resume is None and cfg.get('resume') and not cfg.get('load_from'):
        resume = 'auto'
    if resume == 'auto':
        newest = find_resumable(cfg.work_dir)  # held: not read again below
        resume = newest and newest.path
        cfg.resume = newest is not None
    elif resume is not None:
        cfg.resume = True
    if resume is not None:
        cfg.load_from = resume
    if cfg.get('load_from') is None:
        return
    stored = read_checkpoint(cfg.load_from)
    if cfg.get('resume'):
        refuse_unresumable(stored)
    fit_start(cfg.get('model') or {}, stored)
    hand_over(stored, cfg.load_from)
    # MMEngine would draw a new seed for the sampler first
    if cfg.get('resume') and (cfg.get('randomness') or {}).get('seed') is None:
        cfg.randomness = {
            **(cfg.get('randomness') or {}),
            'seed': stored.meta.get('seed'),
        }


def hand_over(stored: Checkpoint, path: str) -> None:
    """Let MMEngine load what has been read, instead of reading it again.

    Args:
        stored: The checkpoint; it is let go once it has been loaded.
        path: What MMEngine knows it by.
    """
    contents = [stored.content]

    def load(filename: str, map_location: str | None = None):
        if contents:
            return contents.pop()
        return load_from_local(filename, map_location)

    whole_name = f'{re.escape(path)}$'
    CheckpointLoader.register_scheme(whole_name, loader=load, force=True)


def choose_tested_weights(cfg: Config, path: str) -> Checkpoint:
    """Settle what is tested.

    Args:
        cfg: Its model gets the shape of the checkpoint. ``load_from`` is set,
            unless the checkpoint is a classifier's that was exported, which
            the backbone loads.
        path: Checkpoint of a training run, or of tools/export_pruned.py.

    Returns:
        The checkpoint, for :func:`build_tested`.

    Raises:
        CheckpointError: If it is missing, truncated, unsafe, or only a
            backbone's.
    """
    cfg.load_from, cfg.resume = path, False
    add_hook(cfg, 'StrictLoadHook', testing=True)
    add_hook(cfg, 'ClassificationCheckHook')
    stored = read_checkpoint(path)
    fit(cfg.model, stored, 'test')
    if stored.whole or 'backbone' not in cfg.model:
        hand_over(stored, path)
    else:
        cfg.load_from = None
    return stored


def build_tested(cfg: Config, stored: Checkpoint) -> Runner:
    """Build the runner of a config that :func:`choose_tested_weights` set.

    Args:
        cfg: The config.
        stored: What that returned.

    Raises:
        CheckpointError: If an exported classifier has no head that fits.
    """
    runner = build_runner(cfg)
    if not cfg.load_from:
        load_stored(unwrapped(runner.model), stored, 'test')
    return runner
