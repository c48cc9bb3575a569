"""Fill models strictly: what doesn't fit is an error that names it."""

from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor, nn

from mmvitcompress.arch.base import Arch
from mmvitcompress.channels.compactors import is_compactor
from mmvitcompress.checkpoints.file import Checkpoint, refuse_compactors
from mmvitcompress.checkpoints.names import TABLE
from mmvitcompress.checkpoints.recognise import FAMILIES, Weights
from mmvitcompress.errors import CheckpointError
from mmvitcompress.tokens import METHODS

Log = Callable[[str], None]
"""Takes a line for the log."""

_SHOWN = 3  # names per kind of mismatch


def load_strict(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    path: str,
    may_miss: Sequence[str] = (),
    may_ignore: Sequence[str] = (),
) -> list[str]:
    """Load a state dict; anything that doesn't fit is an error naming it.

    Args:
        model: The model to fill; its own conversions of older files are
            applied.
        state_dict: What to fill it with.
        path: Where it came from, for messages.
        may_miss: Prefixes of parameters that may keep their initial values.
        may_ignore: Prefixes of tensors that the model may not have.

    Returns:
        The names that kept their initial values.

    Raises:
        CheckpointError: If a tensor is missing, unexpected, mis-shaped,
            no floating-point number or not finite.
    """
    own = model.state_dict()
    if not any(map(is_compactor, own)):
        refuse_compactors(state_dict, path)
    other_shapes = [
        f'{key} is {tuple(value.shape)}, but the model needs '
        f'{tuple(own[key].shape)}'
        for key, value in state_dict.items()
        if isinstance(own.get(key), Tensor) and own[key].shape != value.shape
    ]
    if other_shapes:
        raise _misfit(path, other_shapes)
    unreal = [
        f'{key} is {value.dtype}'
        for key, value in state_dict.items()
        if key in own and own[key].is_floating_point()
        if not value.is_floating_point()
    ]
    if unreal:
        raise CheckpointError(
            f'checkpoint {str(path)!r} is quantized, or no weights: '
            f'{some(unreal)}; give it in floating point'
        )
    broken = [
        key
        for key, value in state_dict.items()
        if key in own and not value.isfinite().all()
    ]
    if broken:
        raise CheckpointError(
            f'checkpoint {str(path)!r} has NaN or infinite values in '
            f'{some(broken)}: its run diverged, or it is damaged; give one '
            'from before'
        )
    missing, unexpected = model.load_state_dict(state_dict, strict=False)
    lacking = [k for k in missing if not k.startswith(tuple(may_miss))]
    unknown = [k for k in unexpected if not k.startswith(tuple(may_ignore))]
    if lacking or unknown:
        kinds = {'it lacks': lacking, 'it has unexpected': unknown}
        found = [f'{kind} {some(k)}' for kind, k in kinds.items() if k]
        raise _misfit(path, found)
    return missing


def _misfit(path: str, problems: Sequence[str]) -> CheckpointError:
    text = some(problems, '; ')
    return CheckpointError(
        f'checkpoint {str(path)!r} is of another model: {text}; '
        'give one of the model that is built'
    )


def some(items: Sequence[str], between: str = ', ') -> str:
    """A few of many, and how many more there are."""
    more = len(items) - _SHOWN
    text = between.join(items[:_SHOWN])
    return f'{text} and {more} more' if more > 0 else text


# -- token methods -----------------------------------------------------------


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
    if target.family == 'swin':
        unused += [
            f'layers.{stage}.blocks.{block}.{TABLE}'
            for stage, block, _ in target.walk()
            if not target.has_windows(stage, block)
        ]
    for key in METHODS:
        specs = getattr(target, key), getattr(weights.arch, key)
        if specs[1] is None and any(
            name.startswith(f'{key}.') for name in weights.tensors
        ):
            continue  # what they are for can't be seen: loading is strict
        depth = target.token_depth
        ours, theirs = (s.parts(depth) if s else {} for s in specs)
        for name in ours.keys() & theirs:
            if ours[name] != theirs[name]:
                raise CheckpointError(
                    f'{key}.{name} of checkpoint {weights.path!r} was trained '
                    f'for {theirs[name]}, but the config asks for '
                    f'{ours[name]}: leave {key} out to run {specs[1]}, or '
                    'train the one of the config'
                )
        started = [f'{key}.{name}.' for name in ours if name not in theirs]
        if started:
            new[key] = tuple(started)
        unused += [f'{key}.{name}.' for name in theirs if name not in ours]
        if specs[0]:
            passing = [f'{key}.{name}.' for name in METHODS[key].learned_only]
            new[key] = new.get(key, ()) + tuple(passing)
            unused += passing
    new = {key: prefixes for key, prefixes in new.items() if prefixes}
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
