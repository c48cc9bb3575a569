"""Where a config and weights become a model.

Widths and shape are the checkpoint's: a config tells what training started
from. Token methods that the config names run as it says, where the weights
allow it.
"""

import sys
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from os.path import isfile
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn

from mmvitcompress.arch.base import Arch
from mmvitcompress.checkpoints.file import (
    Checkpoint,
    read_checkpoint,
    refuse_compactors,
)
from mmvitcompress.checkpoints.fill import reconcile
from mmvitcompress.checkpoints.load import load_whole
from mmvitcompress.checkpoints.recognise import FAMILIES, Weights
from mmvitcompress.engine.config import use_scope
from mmvitcompress.engine.normalisation import warn_of_normalisation
from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.models.backbones.parts import (
    log,
    switched_off,
    wanted_arch,
)
from mmvitcompress.tokens import METHODS


class Purpose(NamedTuple):
    """What a model is built for.

    Attributes:
        pruning: Whether it may be of a run that prunes channels, compactors
            and all.
        learned: Whether all of it, the head too, must come from a checkpoint.
        whole: Whether that must be a run's, and no exported classifier's.
    """

    pruning: bool = False
    learned: bool = False
    whole: bool = False


PURPOSES = {
    'measure': Purpose(),
    'look': Purpose(pruning=True),
    'predict': Purpose(learned=True),
    'test': Purpose(pruning=True, learned=True),
    'export': Purpose(pruning=True, learned=True, whole=True),
}
"""Purposes: cost and time, which weights don't change; pictures of a backbone;
predictions; evaluating what a run has come to; exporting it."""


def build(
    cfg: Config, checkpoint: str | Path | None = None, purpose: str = 'predict'
) -> nn.Module:
    """Build a config's model, in evaluation mode.

    Neither a teacher nor synchronised batch norms are part of it, and nothing
    is downloaded. Without a checkpoint, weights are random, the same for
    every build.

    Args:
        cfg: Stays as it is. If it isn't ``learned``, a ``checkpoint`` in it
            that doesn't exist is passed over with a note on stderr, if an
            ``arch`` stands beside it that tells the shape as well.
        checkpoint: Of a training run, or of a backbone (or a classifier), as
            tools/export_pruned.py writes it. The arch that it carries wins
            over the config's. Loaded strictly. Defaults to none.
        purpose: One of :data:`PURPOSES`. Defaults to 'predict'.

    Raises:
        CheckpointError: If the checkpoint is missing, unsafe, of another
            model, or doesn't do for the purpose.
    """
    # held until the end: what the model reads of the file is read once
    stored = None if checkpoint is None else read_checkpoint(checkpoint)
    if not cfg.get('model'):
        raise ConfigError('the config has no model to build; add one')
    cfg = deepcopy(cfg)
    fit(cfg.model, stored, purpose)
    use_scope(cfg)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
    if stored is not None:
        load_stored(model, stored, purpose)
    warn_of_normalisation(model)
    return model.eval()


def build_shape(cfg: Config, arch: Mapping) -> nn.Module:
    """The config's model with a backbone of another shape, and random
    weights."""
    cfg = deepcopy(cfg)
    _set_arch(cfg.model.backbone, arch)
    return build(cfg, purpose='measure')


def fit(model: dict, stored: Checkpoint | None, purpose: str) -> None:
    """Let a model's config build what a checkpoint holds, in place.

    For a whole model's checkpoint the config then needs no other file and
    every tensor fits. A backbone's checkpoint becomes the one that the
    backbone loads by itself. Its position embedding is resized to the
    config's ``img_size``, which therefore stays.

    Args:
        model: Config of a segmentor, detector or classifier; its teacher
            goes. Without an arch in the checkpoint the shape stays the
            config's.
        stored: The checkpoint; None for random weights.
        purpose: One of :data:`PURPOSES`.

    Raises:
        CheckpointError: If the checkpoint doesn't do for the purpose, or its
            arch is none.
        ConfigError: If its arch has wrong values.
    """
    pruning, learned, whole = PURPOSES[purpose]
    model.pop('distillation', None)
    backbone = model.get('backbone')
    if _is(model, 'FeatureDistiller'):
        own = (backbone or {}).get('checkpoint')
        teacher = model.pop('teacher', None) or own
        if purpose == 'test':  # features are measured against it
            model['teacher'] = teacher
    for part in (model, backbone or {}):
        for key in ('pretrained', 'init_cfg'):
            if part.get(key):
                part[key] = None
    compactors = backbone is not None and backbone.pop('compactors', None)
    if stored is not None:
        if not pruning:
            refuse_compactors(stored.state_dict, stored.path)
        if backbone is not None:
            needs_whole = whole or (
                learned and not _is(model, 'ImageClassifier')
            )
            if needs_whole and not stored.whole:
                raise CheckpointError(
                    f'checkpoint {stored.path!r} holds a backbone only; give '
                    'the one that training the whole model wrote'
                )
            _take_shape(backbone, stored)
            if compactors and not stored.pruning:
                log(
                    f'compactors of the config are left out: {stored.path} '
                    'has none, since they are folded'
                )
    if not learned:
        _pass_over_missing(model)


def fit_start(model: dict, stored: Checkpoint) -> None:
    """Let a run's config build the shape of what it starts from, in place.

    Compactors and what else is to be trained are the config's.

    Args:
        model: Config of a segmentor, detector or classifier.
        stored: A whole model's checkpoint. Without an arch of ours the shape
            stays the config's.

    Raises:
        CheckpointError: If it is a backbone's alone, or of another one.
        ConfigError: If its arch has wrong values.
    """
    backbone = model.get('backbone')
    if not isinstance(backbone, dict) or not stored.arch:
        return
    if not stored.whole:
        raise CheckpointError(
            f'load_from={stored.path!r} holds a backbone only: set '
            'model.backbone.checkpoint to it'
        )
    if _is(model, 'FeatureDistiller') and not model.get('teacher'):
        # by default what the student started from, which goes now
        model['teacher'] = backbone.get('checkpoint')
    compactors = backbone.get('compactors')
    _take_shape(backbone, stored)
    if compactors:
        backbone['compactors'] = True


def load_stored(model: nn.Module, stored: Checkpoint, purpose: str) -> None:
    """Load what a model of a config that was fitted hasn't loaded by itself.

    Raises:
        CheckpointError: If anything doesn't fit, or the purpose needs a
            classifier that there is not.
    """
    if stored.whole or not hasattr(model, 'backbone'):
        load_whole(model, stored, log)
    elif PURPOSES[purpose].learned and not model.has_weights:
        raise CheckpointError(
            f'checkpoint {stored.path!r} has no classifier for '
            f'{model.num_classes} classes, so that predictions would be '
            'random; give the one that training the classifier wrote'
        )


def _set_arch(backbone: dict, arch: Mapping) -> None:
    """Let a backbone's config build exactly one shape, from random weights."""
    for name in ('img_size', *METHODS, 'compactors'):
        backbone.pop(name, None)
    backbone.update(arch=dict(arch), checkpoint=None)


def _take_shape(backbone: dict, stored: Checkpoint) -> None:
    if not stored.whole:
        backbone['checkpoint'] = stored.path
    elif stored.arch:
        asked = {k: backbone[k] for k in METHODS if backbone.get(k)}
        off = {key: asked[key] for key in switched_off(asked)}
        arch = _settled(backbone, asked, off, stored)
        _set_arch(backbone, arch.to_dict())
        backbone.update(off)  # else a named form would have its own
    elif not Path(backbone.get('checkpoint') or '').is_file():
        # without an arch the file that training started from tells the shape
        backbone.pop('checkpoint', None)
    if stored.pruning:
        backbone['compactors'] = True


def _settled(
    backbone: dict, asked: dict, off: Collection[str], stored: Checkpoint
) -> Arch:
    """The arch of a whole model's checkpoint with what the config asks for."""
    family, own = FAMILIES[stored.arch.family], backbone.get('arch')
    if isinstance(own, str) and own.endswith('.json') and not isfile(own):
        own = None  # what training started from isn't needed any more
    return reconcile(
        Weights(family, {}, stored.arch, stored.path),
        wanted_arch(family, own or stored.arch, **asked),
        log,
        new_window=backbone.get('window_size') is not None,
        training=bool(backbone.get('soft_slimming')),
        off=off,
    )


def _is(model: dict, kind: str) -> bool:
    """Whether a model's config is of a kind of ours.

    The backbone's checkpoint of a classifier may bring the head as well.
    """
    return str(model.get('type')).rpartition('.')[2] == kind


def _pass_over_missing(config: object) -> None:
    for part in _dicts(config):
        checkpoint, arch = part.get('checkpoint'), part.get('arch')
        if checkpoint and arch and not Path(checkpoint).is_file():
            part['checkpoint'] = None
            print(
                f'note: checkpoint {checkpoint!r} does not exist; taking the '
                f'shape of arch {arch!r}, with random weights',
                file=sys.stderr,
            )


def _dicts(config: object) -> Iterator[dict]:
    """All dicts in ``config``, itself included."""
    if isinstance(config, dict):
        yield config
        config = list(config.values())
    if isinstance(config, list | tuple):
        for value in config:
            yield from _dicts(value)
