"""Token methods that a config asks for, beside those that weights know."""

from collections.abc import Callable, Collection

from torch import nn

from mmvitcompress.arch.base import Arch
from mmvitcompress.checkpoints.file import Checkpoint
from mmvitcompress.checkpoints.load import load_strict
from mmvitcompress.checkpoints.recognise import FAMILIES, Weights
from mmvitcompress.errors import CheckpointError
from mmvitcompress.tokens import METHODS

Log = Callable[[str], None]
"""Takes a line for the log."""


def method_parts(
    target: Arch, weights: Weights
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """What weights lack of the token methods of an arch, and have beyond it.

    Returns:
        Prefixes of parameters that start anew, by the method's key; prefixes
        of tensors that have no use.

    Raises:
        CheckpointError: If something was trained for another use.
    """
    new, unused = {}, []
    for key in METHODS:
        specs = getattr(target, key), getattr(weights.arch, key)
        if specs[1] is None and any(
            name.startswith(f'{key}.') for name in weights.tensors
        ):
            continue  # what they are for can't be seen: loading is strict
        ours, theirs = (spec.parts() if spec else {} for spec in specs)
        for name in ours.keys() & theirs:
            if ours[name] != theirs[name]:
                raise CheckpointError(
                    f'{key}.{name} of checkpoint {weights.path!r} was trained '
                    f'for {theirs[name]}, but the config asks for '
                    f'{ours[name]}: leave {key} away to run {specs[1]}, or '
                    'train the one of the config'
                )
        started = [f'{key}.{name}.' for name in ours if name not in theirs]
        if started:
            new[key] = tuple(started)
        unused += [f'{key}.{name}.' for name in theirs if name not in ours]
    return new, unused


def refuse_untrained(arch: Arch, new: Collection[str], path: str) -> None:
    """Raise CheckpointError if a method that must have learned is new."""
    for spec in arch.reductions:
        if spec.untrained and spec.key in new:
            raise CheckpointError(f'checkpoint {path!r} {spec.untrained}')


def load_whole(model: nn.Module, checkpoint: Checkpoint, log: Log) -> None:
    """Load a whole model strictly; merges that are new start as means.

    Args:
        model: Maybe with a backbone of ours.
        checkpoint: The model's. Without an arch all of it must fit.
        log: Told what starts anew.

    Raises:
        CheckpointError: If anything doesn't fit.
    """
    target = getattr(getattr(model, 'backbone', None), 'arch', None)
    source, path = checkpoint.arch, checkpoint.path
    if source is None or not isinstance(target, Arch):
        load_strict(model, checkpoint.state_dict, path)
        return
    weights = Weights(FAMILIES[source.family], {}, source, path)
    new, unused = method_parts(target, weights)
    refuse_untrained(target, new, path)
    load_strict(
        model,
        checkpoint.state_dict,
        path,
        may_miss=[f'backbone.{p}' for parts in new.values() for p in parts],
        may_ignore=[f'backbone.{part}' for part in unused],
    )
    for spec in target.reductions:
        if spec.key in new:
            log(f'{path}: {spec.start}')
