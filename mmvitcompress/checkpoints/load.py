"""Fill models strictly: what doesn't fit is an error that names it."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from mmvitcompress.arch.base import Arch
from mmvitcompress.channels.compactors import is_compactor
from mmvitcompress.checkpoints.file import refuse_compactors
from mmvitcompress.checkpoints.recognise import Weights
from mmvitcompress.checkpoints.vit import HEAD_PREFIXES
from mmvitcompress.errors import CheckpointError
from mmvitcompress.tokens import METHODS

Log = Callable[[str], None]
"""Takes a line for the log."""

_WIDTHS = ('qk_dims', 'v_dims', 'mlp_dims')
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
        CheckpointError: If a tensor is missing, unexpected or mis-shaped.
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
        f'checkpoint {str(path)!r} is of another model: {text}'
    )


def some(items: Sequence[str], between: str = ', ') -> str:
    """A few of many, and how many more there are."""
    more = len(items) - _SHOWN
    text = between.join(items[:_SHOWN])
    return f'{text} and {more} more' if more > 0 else text


# -- backbones --------------------------------------------------------------


def reconcile(
    weights: Weights,
    wanted: Arch | None,
    identity: Sequence[str],
    log: Log,
    remedies: Mapping[str, str] | None = None,
    use: Sequence[str] = (),
) -> Arch:
    """The checkpoint's arch, with what only the config asks for added.

    Token methods are added where the checkpoint has none; where both have
    some, the checkpoint's count, as its widths do.

    Args:
        weights: The checkpoint.
        wanted: The config's arch, or None if it leaves it open.
        identity: Names of the values that must be equal.
        log: Told what of the config does not count.
        remedies: What to do about an unequal value, by its name.
        use: Names of values that are a matter of use, not of weights: the
            config's count.

    Raises:
        CheckpointError: If a value of ``identity`` differs.
    """
    arch = weights.arch
    if wanted is None:
        return arch
    for name in identity:
        ours, theirs = getattr(wanted, name), getattr(arch, name)
        if ours != theirs:
            remedy = (remedies or {}).get(name, '')
            raise CheckpointError(
                f'checkpoint {weights.path!r} is of another arch: its {name} '
                f'is {theirs}, but the config asks for {ours}{remedy}'
            )
    added = {name: getattr(wanted, name) for name in use}
    for name in (*_WIDTHS, *METHODS):
        ours, theirs = getattr(wanted, name), getattr(arch, name)
        if theirs is None:
            added[name] = ours
        elif ours is not None and theirs != ours:
            log(
                f'{name} of {weights.path} replaces that of the config: '
                f'{theirs}'
            )
    return arch.replace(**added)


def load_backbone(
    model: nn.Module,
    weights: Weights,
    log: Log,
    may_start: Mapping[str, Sequence[str]],
    may_ignore: Sequence[str],
) -> None:
    """Fill a backbone strictly, and log what starts anew.

    Args:
        model: The backbone.
        weights: Its weights; a head is ignored.
        log: Told what was loaded.
        may_start: Prefixes of parameters that may keep their initial values,
            under what to say if some do.
        may_ignore: Prefixes of tensors that the model may not have.

    Raises:
        CheckpointError: If anything doesn't fit.
    """
    new = load_strict(
        model,
        weights.tensors,
        weights.path,
        may_miss=tuple(p for group in may_start.values() for p in group),
        may_ignore=(*HEAD_PREFIXES, *may_ignore),
    )
    notes = [
        f'; {note}'
        for note, prefixes in may_start.items()
        if any(name.startswith(tuple(prefixes)) for name in new)
    ]
    log(f'backbone loaded from {weights.path}{"".join(notes)}')


def new_methods(weights: Weights) -> list[str]:
    """Token methods that a checkpoint knows nothing of, by key."""
    return [
        key
        for key in METHODS
        if getattr(weights.arch, key) is None
        and not any(name.startswith(f'{key}.') for name in weights.tensors)
    ]
