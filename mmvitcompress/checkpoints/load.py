"""Fill models strictly: what doesn't fit is an error that names it."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mmvitcompress.channels.compactors import is_compactor
from mmvitcompress.checkpoints.file import refuse_compactors
from mmvitcompress.errors import CheckpointError

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
        CheckpointError: If a tensor is missing, unexpected, mis-shaped or
            not finite.
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
        f'checkpoint {str(path)!r} is of another model: {text}'
    )


def some(items: Sequence[str], between: str = ', ') -> str:
    """A few of many, and how many more there are."""
    more = len(items) - _SHOWN
    text = between.join(items[:_SHOWN])
    return f'{text} and {more} more' if more > 0 else text
