"""Exact resume: random numbers go on where the checkpoint left them.

MMEngine restores weights, optimizer and schedule, but no random number
generator: a resumed run sees other augmentations, drop paths and dropouts
than one that was never interrupted.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dataset import worker_init_fn as mmengine_worker_init
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader

from mmvitcompress.registry import HOOKS


def capture_rng_state() -> dict[str, Any]:
    """The state of every generator that this process draws from.

    Returns:
        Tensors and builtin types only, so that a checkpoint holding it can be
        read with ``weights_only=True``.
    """
    kind, key, position, has_gauss, cached_gauss = np.random.get_state()
    state = {
        'python': random.getstate(),
        'numpy': (
            kind,
            torch.from_numpy(key.astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached_gauss),
        ),
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def restore_rng_state(state: dict[str, Any]) -> None:
    """Set every generator to what :func:`capture_rng_state` returned; that of
    CUDA where there is CUDA."""
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    kind, key, *rest = state['numpy']
    np.random.set_state((kind, key.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


@HOOKS.register_module()
class RNGStateHook(Hook):
    """Stores the random state of every rank in checkpoints and restores it.

    A run that was killed and resumed from its last checkpoint then computes
    the same losses as one that was never interrupted, given the same seed,
    number of processes and workers. Three things follow for all runs:

    - Validation draws no random numbers from training's stream.
    - In a loop over epochs, workers are seeded anew from that stream for
      every epoch, which also ends the workers that would have persisted.
    - A checkpoint saved within an epoch of such a loop resumes at that
      epoch's beginning, as MMEngine has it, and thus not exactly.

    With several processes it needs :class:`AtomicCheckpointHook`, which calls
    :meth:`before_save_on_all_ranks`.
    """

    # nothing may draw between what this hook does and the next batch
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._to_save: list[dict] | None = None
        self._loaded: list[dict] | None = None
        self._held: dict | None = None
        self._restore: Callable[[], None] | None = None

    def before_save_on_all_ranks(self, runner: Runner) -> None:
        """Gather what rank 0 is about to write."""
        self._to_save = all_gather_object(self._held or capture_rng_state())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add ``rng_states``, a list of one state per rank."""
        if self._to_save is None and get_world_size() == 1:
            self.before_save_on_all_ranks(runner)
        if self._to_save is not None:
            checkpoint['rng_states'] = self._to_save
            self._to_save = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the states until training begins."""
        self._loaded = checkpoint.get('rng_states')

    def before_train(self, runner: Runner) -> None:
        """Arrange for restoring, and for seeding the workers."""
        loop = runner.train_loop
        by_epoch = not hasattr(loop, 'dataloader_iterator')
        if by_epoch:
            _seed_workers_from_main_process(loop.dataloader)
        if not loop.iter:
            return  # weights were loaded to start from, not to resume
        if self._loaded is None or len(self._loaded) != get_world_size():
            runner.logger.info(
                'The checkpoint has no random state for these '
                f'{get_world_size()} processes: training goes on, but not '
                'with the random numbers of an uninterrupted run.'
            )
            return
        restore = partial(restore_rng_state, self._loaded[get_rank()])
        if by_epoch:
            self._restore = restore
        else:
            loop.dataloader_iterator = _RestoringIterator(loop, restore)

    def before_train_epoch(self, runner: Runner) -> None:
        """Restore at the first epoch; end workers that persisted."""
        loader = runner.train_loop.dataloader
        if not hasattr(runner.train_loop, 'dataloader_iterator'):
            # their random state is out of reach, so that no epoch may
            # depend on what they drew in the one before
            loader._iterator = None
        if self._restore is not None:
            self._restore()
            self._restore = None

    def before_val(self, runner: Runner) -> None:
        """Hold training's random state."""
        self._held = capture_rng_state()

    def after_val(self, runner: Runner) -> None:
        """Go on with training's random state."""
        restore_rng_state(self._held)
        self._held = None


class _RestoringIterator:
    """A loop's batches; restores once those trained on have been replayed.

    MMEngine draws the batches of all iterations already trained to bring the
    sampler and the workers where they were.
    """

    def __init__(self, loop: BaseLoop, restore: Callable[[], None]) -> None:
        self._loop = loop
        self._batches = loop.dataloader_iterator
        self._restore = restore
        # in the forks, this option of the loop leaves the replay out
        skips = getattr(loop, 'fast_forward_on_resume', False)
        self._to_replay = 0 if skips else loop.iter

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        if self._to_replay:
            self._to_replay -= 1
            return next(self._batches)
        # the forks make the iterator late, which draws a random number
        getattr(self._batches, '_ensure_iterator', lambda: None)()
        self._restore()
        self._loop.dataloader_iterator = self._batches
        return next(self._batches)

    def skip_iter(self, num_iters: int) -> None:
        """What the forks call in place of replaying batch by batch."""
        if self._loop.dataloader.num_workers:
            for _ in range(num_iters):  # for the workers' random state
                next(self._batches)
        else:
            self._batches.skip_iter(num_iters)
        self._to_replay = 0


def _seed_workers_from_main_process(loader: DataLoader) -> None:
    """Let workers draw other random numbers in every epoch.

    MMEngine gives them the same seed whenever they start, so that they would
    repeat the first epoch's augmentations. A function of the user's own is
    left alone.
    """
    init = loader.worker_init_fn
    if getattr(init, 'func', None) is mmengine_worker_init:
        offset = get_rank() * loader.num_workers
        loader.worker_init_fn = partial(_init_worker, init=init, offset=offset)


def _init_worker(worker_id: int, init: Callable, offset: int) -> None:
    # what torch drew from the main process's stream, plus the worker's id
    seed = torch.initial_seed() + offset
    init(worker_id)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
