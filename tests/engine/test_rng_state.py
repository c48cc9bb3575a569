"""Capturing and restoring random states, and who draws from which."""

import random
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import worker_init_fn
from torch.utils.data import DataLoader, Dataset

from mmvitcompress.engine.hooks.rng_state import (
    RNGStateHook,
    capture_rng_state,
    restore_rng_state,
)


def draw():
    """One number of every generator, and one of a cached pair."""
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        torch.rand(()).item(),
    )


class Draws(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return random.random(), np.random.rand(), torch.rand(()).item()


class Logger:
    def __init__(self):
        self.lines = []

    def info(self, line):
        self.lines.append(line)


def runner_with(loader, **loop):
    """What the hook sees of a runner."""
    return SimpleNamespace(
        train_loop=SimpleNamespace(dataloader=loader, **loop), logger=Logger()
    )


def loader_of(num_workers, persistent=False):
    init = partial(worker_init_fn, num_workers=num_workers, rank=0, seed=5)
    return DataLoader(
        Draws(),
        batch_size=None,
        num_workers=num_workers,
        persistent_workers=persistent,
        worker_init_fn=init,
        multiprocessing_context='fork' if num_workers else None,
    )


def test_restored_generators_draw_the_same():
    draw()  # leaves the second of a pair of normal numbers behind
    state = capture_rng_state()
    expected = [draw() for _ in range(700)]  # past a refill of 624 words
    restore_rng_state(state)
    assert [draw() for _ in range(700)] == expected


def test_state_survives_a_safe_checkpoint(tmp_path):
    state = capture_rng_state()
    expected = draw()
    torch.save({'rng_states': [state]}, tmp_path / 'x.pth')
    loaded = torch.load(tmp_path / 'x.pth', weights_only=True)
    restore_rng_state(loaded['rng_states'][0])
    assert draw() == expected


def test_validation_draws_nothing_from_training():
    hook = RNGStateHook()
    state = capture_rng_state()
    expected = draw()
    restore_rng_state(state)
    hook.before_val(None)
    draw()
    # the best checkpoint's step is saved again within validation
    checkpoint = {}
    hook.before_save_checkpoint(None, checkpoint)
    hook.after_val(None)
    assert draw() == expected
    restore_rng_state(checkpoint['rng_states'][0])
    assert draw() == expected


@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize('persistent', [False, True])
def test_epochs_after_a_restart_are_those_of_the_whole_run(
    num_workers, persistent
):
    if persistent and not num_workers:
        persistent = False  # the same as without
    whole = loader_of(num_workers, persistent)
    hook, runner = RNGStateHook(), runner_with(whole, iter=0)
    hook.before_train(runner)
    epochs, checkpoint = [], {}
    for epoch in range(3):
        hook.before_train_epoch(runner)
        epochs.append([(batch, draw()) for batch in whole])
        if epoch == 0:
            hook.before_save_checkpoint(runner, checkpoint)
    # no augmentation is repeated, neither between epochs nor workers
    seen = [
        number for epoch in epochs for batch, _ in epoch for number in batch
    ]
    assert len(set(seen)) == len(seen)

    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    rest = loader_of(num_workers, persistent)
    hook, runner = RNGStateHook(), runner_with(rest, iter=6)
    hook.after_load_checkpoint(runner, checkpoint)
    hook.before_train(runner)
    resumed = []
    for _ in range(2):
        hook.before_train_epoch(runner)
        resumed.append([(batch, draw()) for batch in rest])
    assert resumed == epochs[1:]


class Forks:
    """How the forks iterate: late, and skipping in place of replaying."""

    def __init__(self, loader):
        self.loader, self.iterator, self.skipped = loader, None, 0

    def _ensure_iterator(self):
        if self.iterator is None:
            self.iterator = iter(self.loader)
            for _ in range(self.skipped):
                self.iterator._next_index()

    def skip_iter(self, count):
        self.skipped = count

    def __next__(self):
        self._ensure_iterator()
        return next(self.iterator)


@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize('way', ['replay', 'skip', 'neither'])
def test_iterations_after_a_restart_are_those_of_the_whole_run(
    num_workers, way
):
    def loop(start, **kwargs):
        loader = loader_of(num_workers)
        batches = iter(loader) if way == 'replay' else Forks(loader)
        return runner_with(
            loader, iter=start, dataloader_iterator=batches, **kwargs
        )

    hook, runner = RNGStateHook(), loop(0)
    hook.before_train(runner)
    whole, checkpoint = [], {}
    for step in range(6):
        hook.before_train_epoch(runner)  # must leave the iterator alone
        whole.append((next(runner.train_loop.dataloader_iterator), draw()))
        if step == 3:
            hook.before_save_checkpoint(runner, checkpoint)

    torch.manual_seed(9)
    hook = RNGStateHook()
    if way == 'neither':
        runner = loop(4, fast_forward_on_resume=True)
    else:
        runner = loop(4)
    hook.after_load_checkpoint(runner, checkpoint)
    hook.before_train(runner)
    if way == 'skip':
        runner.train_loop.dataloader_iterator.skip_iter(4)
    elif way == 'replay':
        for _ in range(4):
            next(runner.train_loop.dataloader_iterator)
    resumed = [
        (next(runner.train_loop.dataloader_iterator), draw()) for _ in range(2)
    ]
    if way == 'neither' and num_workers:
        # the workers begin anew, but the process itself does not
        assert [own for _, own in resumed] == [own for _, own in whole[4:]]
    else:
        assert resumed == whole[4:]


def test_starting_from_weights_restores_nothing():
    hook, runner = RNGStateHook(), runner_with(loader_of(0), iter=0)
    hook.after_load_checkpoint(runner, {'rng_states': [capture_rng_state()]})
    torch.manual_seed(1)
    expected = torch.rand(2).tolist()
    torch.manual_seed(1)
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    assert torch.rand(2).tolist() == expected


def test_states_of_other_processes_are_not_used():
    hook, runner = RNGStateHook(), runner_with(loader_of(0), iter=6)
    states = [capture_rng_state(), capture_rng_state()]
    hook.after_load_checkpoint(runner, {'rng_states': states})
    hook.before_train(runner)
    assert len(runner.logger.lines) == 1


def test_a_users_worker_init_is_left_alone():
    loader = loader_of(2)
    loader.worker_init_fn = init = partial(print, 'started')
    RNGStateHook().before_train(runner_with(loader, iter=0))
    assert loader.worker_init_fn is init
