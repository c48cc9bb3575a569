"""Loading that doesn't go on with random weights.

MMEngine only logs what is missing in a checkpoint or of another shape.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmvitcompress.errors import CheckpointError
from mmvitcompress.registry import HOOKS

SHOWN = 3  # names per kind of mismatch


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Refuses checkpoints of another model.

    Args:
        whole: Whether every tensor must fit, as for testing and resuming.
            Otherwise at least one must: who trains from weights may have a
            new head, but hardly another model. Defaults to True.
    """

    # sees what EMAHook made of the checkpoint
    priority = 'LOWEST'

    def __init__(self, whole: bool = True) -> None:
        self.whole = whole

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check before MMEngine loads.

        Raises:
            CheckpointError: If it doesn't fit; the message names tensors.
        """
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        check = require_fit if self.whole else require_overlap
        state_dict = checkpoint.get('state_dict', checkpoint)
        check(model, _plain(state_dict), runner._load_from)


def require_fit(
    model: nn.Module, state_dict: Mapping[str, Tensor], path: str
) -> None:
    """Load what must be exactly the model's state.

    Args:
        model: The model; its own conversions of older files are applied.
        state_dict: What to load into it.
        path: Where that came from, for the message.

    Raises:
        CheckpointError: If a tensor is missing, unexpected or mis-shaped.
    """
    try:
        missing, unexpected = model.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        shapes = re.findall(r'size mismatch for (.+?)\.?$', str(error), re.M)
        if not shapes:
            raise
        problems = [_some('other shapes', shapes)]
    else:
        found = {'missing': missing, 'unexpected': unexpected}
        problems = [_some(kind, keys) for kind, keys in found.items() if keys]
    if problems:
        raise CheckpointError(
            f'checkpoint {str(path)!r} is of another model: '
            + '; '.join(problems)
        )


def require_classifier(model: nn.Module, path: str | Path) -> None:
    """Refuse an image classifier whose head no checkpoint has filled.

    Args:
        model: The classifier; its backbone's checkpoint should bring the
            head.
        path: That checkpoint, for the message.

    Raises:
        CheckpointError: If the head is random.
    """
    if not model.has_weights:
        raise CheckpointError(
            f'checkpoint {str(path)!r} has no classifier for '
            f'{model.num_classes} classes, so that predictions would be '
            'random; give the one that training the classifier wrote'
        )


def require_overlap(
    model: nn.Module, state_dict: Mapping[str, Tensor], path: str
) -> None:
    """Check that at least one tensor fits the model.

    Raises:
        CheckpointError: If none does.
    """
    own = model.state_dict()
    if not any(
        key in own and getattr(value, 'shape', None) == own[key].shape
        for key, value in state_dict.items()
    ):
        raise CheckpointError(
            f'no tensor of checkpoint {str(path)!r} fits the model: it has '
            f'{_some("names", list(state_dict))}, the model '
            f'{_some("names", list(own))}'
        )


def _plain(state_dict: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Without the prefix that DistributedDataParallel adds."""
    plain = OrderedDict(
        (key.removeprefix('module.'), value)
        for key, value in state_dict.items()
    )
    plain._metadata = getattr(state_dict, '_metadata', OrderedDict())
    return plain


def _some(kind: str, items: Sequence[str]) -> str:
    more = len(items) - SHOWN
    listed = ', '.join(items[:SHOWN])
    return f'{kind}: {listed}' + (f' and {more} more' if more > 0 else '')
