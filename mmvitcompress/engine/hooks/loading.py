"""What runs may load, and what of a config a resumed one does not follow.

MMEngine only logs what is missing in a checkpoint or of another shape, and
puts its values into optimizer and schedulers, whatever the config says by
then.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmvitcompress.checkpoints.file import Checkpoint
from mmvitcompress.checkpoints.load import load_strict, load_whole, some
from mmvitcompress.errors import CheckpointError
from mmvitcompress.registry import HOOKS

NEW_RUN = (
    'to train on from the weights alone start a new run with --cfg-options '
    'load_from={}'
)
# what schedulers count and compute as they go
_MOVING = {'last_step', 'base_values', '_global_step', '_last_value'}


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


@HOOKS.register_module()
class ResumeCheckHook(Hook):
    """Compares optimizer and schedulers with those of the checkpoint.

    What the checkpoint overrides is logged as a warning.
    """

    # after StrictLoadHook: of another model, nothing else matters
    priority = 'LOWEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare before MMEngine loads.

        Raises:
            CheckpointError: If its optimizer can't go on with the parameters
                that it is given now.
        """
        if not runner._resume:
            return
        path = str(runner._load_from)
        self.remedy = NEW_RUN.format(path)
        changed = []
        states = checkpoint['optimizer'].get('param_groups')
        if states is not None and hasattr(runner.optim_wrapper, 'optimizer'):
            groups = runner.optim_wrapper.optimizer.param_groups
            self._check_optimizer(runner, checkpoint, path)
            self._check_groups(groups, states, path)
            changed += _unequal(groups, states, 'optimizer')
        schedulers = runner.param_schedulers or []
        states = checkpoint.get('param_schedulers') or []
        if isinstance(schedulers, list) and isinstance(states, list):
            ours = [_settings(s.state_dict()) for s in schedulers]
            theirs = [_settings(state) for state in states]
            if len(ours) != len(theirs):
                changed.append(
                    f'{len(theirs)} param_scheduler (config: {len(ours)})'
                )
            changed += _unequal(ours, theirs, 'param_scheduler')
        if changed:
            runner.logger.warning(
                f'On resuming, {path} overrides the config: '
                f"{'; '.join(changed)}. To use the config's, {self.remedy}"
            )

    def _check_optimizer(self, runner, checkpoint, path: str) -> None:
        """Moments of one optimizer are none of another."""
        text = checkpoint['meta'].get('cfg') or ''
        try:
            before = Config.fromstring(text, '.py').optim_wrapper.optimizer
        except Exception:  # not written by a run of a config
            return
        now = type(runner.optim_wrapper.optimizer).__name__
        kind = before.type if isinstance(before.type, str) else now
        if kind.rpartition('.')[2] != now:
            raise CheckpointError(
                f'checkpoint {path!r} was trained by {before.type}, but the '
                f'config asks for {now}: an optimizer cannot be changed on '
                f'--resume; {self.remedy}'
            )

    def _check_groups(self, ours: list, theirs: list, path: str) -> None:
        sizes = [
            [len(g['params']) for g in groups] for groups in (ours, theirs)
        ]
        if sizes[0] != sizes[1]:
            raise CheckpointError(
                f'the optimizer of checkpoint {path!r} has {sum(sizes[1])} '
                f'parameters in {len(theirs)} groups, but the config makes '
                f'{sum(sizes[0])} in {len(ours)}: what freezes or groups them '
                '(frozen_stages, paramwise_cfg with its layer_decay) cannot '
                f'be changed on --resume; {self.remedy}'
            )


def refuse_unresumable(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError for weights alone, as exported ones are."""
    lacking = {'meta', 'optimizer', 'message_hub'} - {*checkpoint.content}
    if lacking:
        path = checkpoint.path
        raise CheckpointError(
            f'checkpoint {path!r} cannot be resumed from: it has no '
            f'{", no ".join(sorted(lacking))}; {NEW_RUN.format(path)}'
        )


def _settings(state: dict) -> dict:
    return {k: v for k, v in state.items() if k not in _MOVING}


def _unequal(
    ours: Sequence[dict], theirs: Sequence[dict], what: str
) -> Iterator[str]:
    """``optimizer lr 0.01 (config: 0.02)``, the first of each value."""
    seen = set()
    for mine, stored in zip(ours, theirs):
        for key in {**mine}.keys() & stored.keys() - {'params'}:
            moves = key == 'lr' and 'initial_lr' in stored
            a, b = mine[key], stored[key]
            plain = isinstance(a, int | float | str | bool | list | tuple)
            if moves or key in seen or not plain or _same(a, b):
                continue
            seen.add(key)
            name = 'lr' if key == 'initial_lr' else key
            yield f'{what} {name} {b} (config: {a})'


def _same(a, b) -> bool:
    pairs = isinstance(a, list | tuple) and isinstance(b, list | tuple)
    return list(a) == list(b) if pairs else a == b
