"""Loading that doesn't go on with random weights.

MMEngine only logs what is missing in a checkpoint or of another shape.
"""

from collections import OrderedDict
from collections.abc import Mapping

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmvitcompress.checkpoints.file import Checkpoint
from mmvitcompress.checkpoints.load import load_strict, load_whole, some
from mmvitcompress.errors import CheckpointError
from mmvitcompress.registry import HOOKS


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Refuses checkpoints of another model.

    Args:
        whole: Whether every tensor must fit, as for testing and resuming.
            Otherwise at least one must: who trains from weights may have a
            new head, but hardly another model. Defaults to True.
        testing: Whether token methods may be others than the checkpoint's, if
            its weights allow it. Defaults to False.
    """

    # sees what EMAHook made of the checkpoint
    priority = 'LOWEST'

    def __init__(self, whole: bool = True, testing: bool = False) -> None:
        self.whole = whole
        self.testing = testing

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Load strictly, before MMEngine loads the same leniently.

        Raises:
            CheckpointError: If it doesn't fit; the message names tensors.
        """
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        state_dict = _plain(checkpoint.get('state_dict', checkpoint))
        path = str(runner._load_from)
        if self.testing:
            meta = checkpoint.get('meta') or {}
            stored = Checkpoint(path, checkpoint, state_dict, meta)
            load_whole(model, stored, runner.logger.info)
        else:
            check = load_strict if self.whole else _require_overlap
            check(model, state_dict, path)


def _require_overlap(
    model: nn.Module, state_dict: Mapping[str, Tensor], path: str
) -> None:
    own = model.state_dict()
    if not any(
        key in own and getattr(value, 'shape', None) == own[key].shape
        for key, value in state_dict.items()
    ):
        raise CheckpointError(
            f'no tensor of checkpoint {str(path)!r} fits the model: it has '
            f'{some(list(state_dict))}, the model {some(list(own))}'
        )


def _plain(state_dict: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Without the prefix that DistributedDataParallel adds."""
    plain = OrderedDict(
        (key.removeprefix('module.'), value)
        for key, value in state_dict.items()
    )
    plain._metadata = getattr(state_dict, '_metadata', OrderedDict())
    return plain
