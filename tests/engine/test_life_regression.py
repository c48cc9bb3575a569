"""Two-stage training on random images: who learns when, resume, DDP."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch.utils.data import Dataset
from warm import warm_python

from mmvitcompress.engine.hooks import LifeRegressionHook
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedViT

pytestmark = pytest.mark.slow

ARCH = dict(embed_dim=24, depth=3, num_heads=3, patch_size=8, img_size=32)
SLIM = dict(base_layer=1, layers=(1, 2), keep_rate=0.5)
CONV = dict(stem='conv', stem_dim=8)
PREDICTOR = 'backbone.patch_slimming.'
STEPS = 2  # iterations per epoch


@DATASETS.register_module(force=True)
class RandomImages(Dataset):
    def __len__(self):
        return 4 * STEPS

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(3, 32, 32, generator=generator), index % 3


def runner_of(folder, hook, count=3, by_epoch=True, wrap=None, **changes):
    """A runner that trains ``count`` epochs or iterations."""
    kind = dict(by_epoch=by_epoch, interval=1)
    sampler = 'DefaultSampler' if by_epoch else 'InfiniteSampler'
    backbone = dict(
        type='CompressedViT',
        arch=ARCH,
        patch_slimming=SLIM,
        soft_slimming=True,
    )
    cfg = dict(
        default_scope='mmvitcompress',
        experiment_name=str(folder).replace('/', '_'),
        work_dir=str(folder),
        model=dict(
            type='ImageClassifier',
            backbone=backbone | changes.pop('backbone', {}),
            num_classes=3,
        ),
        train_dataloader=dict(
            batch_size=changes.pop('batch_size', 4),
            num_workers=0,
            sampler=dict(type=sampler, shuffle=True, seed=3),
            dataset=dict(type='RandomImages'),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=count)
        if by_epoch
        else dict(by_epoch=False, max_iters=count),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.5),
            clip_grad=dict(max_norm=1.0),
        ),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', **kind)),
        randomness=dict(seed=5),
        log_level='ERROR',
        launcher='none',
    )
    cfg = Config(cfg | changes)
    if wrap is not None:
        wrap(cfg)
    runner = Runner.from_cfg(cfg)
    if hook is not None:
        runner.register_hook(hook)
    return runner


class Watch(Hook):
    """What every optimizer step saw, and the model before and after it."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.model, self.seen = runner.model, []
        self.states = [self.state()]
        optimizer = runner.optim_wrapper.optimizer
        self.optimizer = optimizer
        self.handle = optimizer.register_step_pre_hook(self.before_step)

    def state(self):
        state = self.model.state_dict()
        return {key: value.clone() for key, value in state.items()}

    def before_step(self, *_):
        named = self.model.named_parameters()
        self.seen.append({k for k, p in named if p.grad is not None})

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.states.append(self.state())

    def moved(self, step):
        before, after = self.states[step : step + 2]
        return {k for k in after if not torch.equal(before[k], after[k])}


def train(folder, hook, **kwargs):
    """Train and watch; returns the watch and the runner."""
    runner = runner_of(folder, hook, **kwargs)
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    return watch, runner


def names(watch, predictor):
    named = dict(watch.model.named_parameters())
    return {k for k in named if k.startswith(PREDICTOR) == predictor}


def test_predictor_first_then_the_rest(tmp_path):
    watch, _ = train(tmp_path, LifeRegressionHook())
    assert len(watch.seen) == 3 * STEPS
    for step, seen in enumerate(watch.seen):
        learning = names(watch, predictor=step < STEPS)
        # weights of 1 and 0 of 0 stay where only decay would move them
        assert seen == learning
        assert watch.moved(step) == learning
    # each stage's moments began with the stage
    state = watch.optimizer.state
    for name, parameter in watch.model.named_parameters():
        steps = STEPS if name.startswith(PREDICTOR) else 2 * STEPS
        assert int(state[parameter]['step']) == steps
        assert parameter.requires_grad  # as it came


def test_batch_norms_keep_still_in_the_first_stage(tmp_path):
    watch, _ = train(
        tmp_path,
        LifeRegressionHook(predictor_iters=3),
        backbone=dict(arch={**ARCH, **CONV}),
    )
    statistics = set(watch.states[0]) - names(watch, True)
    statistics -= names(watch, False)
    assert len(statistics) == 9  # mean, variance and count of 3 norms
    for step in range(3 * STEPS):
        moving = statistics if step >= 3 else set()
        assert watch.moved(step) & statistics == moving


def test_frozen_stages_stay_frozen(tmp_path):
    watch, _ = train(
        tmp_path, LifeRegressionHook(), backbone=dict(frozen_stages=2)
    )
    for step in range(3 * STEPS):
        late = ('backbone.blocks.2', 'backbone.norm', 'head')
        start = PREDICTOR if step < STEPS else late
        moved = watch.moved(step)
        assert moved and all(name.startswith(start) for name in moved)
    assert not watch.model.backbone.blocks[1].mlp.fc1.weight.requires_grad


def test_gradients_half_accumulated_go_with_their_stage(tmp_path):
    watch, _ = train(
        tmp_path,
        LifeRegressionHook(predictor_iters=3),
        by_epoch=False,
        count=6,
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=1e-2),
            accumulative_counts=2,
        ),
    )
    stages = [names(watch, True), names(watch, False), names(watch, False)]
    assert watch.seen == stages


def test_clipping_counts_only_what_learns(tmp_path):
    watch, runner = train(tmp_path, LifeRegressionHook(), count=1)
    logged, _ = runner.message_hub.get_scalar('train/grad_norm').data
    fresh = runner_of(tmp_path / 'fresh', None)
    fresh.model.load_state_dict(watch.states[0])
    batch = next(iter(runner.train_dataloader))
    fresh.model.train()(*batch, mode='loss')['loss'].backward()
    grads = [
        parameter.grad
        for name, parameter in fresh.model.named_parameters()
        if name.startswith(PREDICTOR)
    ]
    expected = torch.nn.utils.get_total_norm(grads)
    assert logged[0] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize('length', [None, 0, 3])
def test_other_lengths(tmp_path, length):
    watch, _ = train(tmp_path, LifeRegressionHook(length))
    predictor, rest = names(watch, True), names(watch, False)
    expected = {None: predictor | rest, 0: rest, 3: predictor}[length]
    for step, seen in enumerate(watch.seen):
        assert seen == expected
        assert watch.moved(step) == expected


@pytest.mark.parametrize(
    ('by_epoch', 'hook', 'stop'),
    [
        (True, dict(predictor_epochs=2), 'epoch_1'),
        (True, dict(predictor_epochs=1), 'epoch_2'),
        (False, dict(predictor_iters=3), 'iter_2'),
        (False, dict(predictor_iters=3), 'iter_3'),
        (False, dict(predictor_iters=2), 'iter_4'),
    ],
)
def test_resume_is_exact(tmp_path, by_epoch, hook, stop):
    kwargs = dict(by_epoch=by_epoch, count=3 if by_epoch else 6)
    whole, _ = train(tmp_path / 'whole', LifeRegressionHook(**hook), **kwargs)
    file = tmp_path / 'whole' / f'{stop}.pth'
    resumed, _ = train(
        tmp_path / 'resumed',
        LifeRegressionHook(**hook),
        load_from=str(file),
        resume=True,
        **kwargs,
    )
    done = int(stop.split('_')[1]) * (STEPS if by_epoch else 1)
    assert len(resumed.states) == len(whole.states) - done > 1
    for mine, theirs in zip(resumed.states, whole.states[done:]):
        for key, value in theirs.items():
            assert torch.equal(mine[key], value), key


def test_result_becomes_a_slimming_backbone(tmp_path):
    watch, _ = train(tmp_path, LifeRegressionHook(1), count=2)
    soft = watch.model.backbone.eval()
    hard = CompressedViT(
        ARCH,
        patch_slimming=SLIM,
        checkpoint=str(tmp_path / 'epoch_2.pth'),
        out_indices=[-1],
        out_type='raw',
        final_norm=True,
    ).eval()
    x = torch.randn(2, 3, 40, 32)
    assert hard(x)[0].shape == (2, 1 + 5, 24)  # 20 → 10 → 5
    assert torch.equal(hard(x)[0], soft(x)[0])


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(predictor_epochs=-1), 'predictor_epochs .* but got -1'),
        (dict(predictor_epochs=0.5), 'predictor_epochs .* but got 0.5'),
        (dict(predictor_iters='all'), "predictor_iters .* but got 'all'"),
    ],
)
def test_lengths_that_are_none(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        LifeRegressionHook(**kwargs)


@pytest.mark.parametrize(
    ('hook', 'kwargs', 'message'),
    [
        ({}, dict(backbone=dict(soft_slimming=False)), 'soft_slimming=True'),
        (dict(predictor_epochs=4), {}, 'which has 3, but got 4'),
        (dict(predictor_iters=7), {}, 'which has 6, but got 7'),
        ({}, dict(by_epoch=False), 'predictor_iters instead'),
    ],
)
def test_runs_that_cannot_be(tmp_path, hook, kwargs, message):
    runner = runner_of(tmp_path, LifeRegressionHook(**hook), **kwargs)
    with pytest.raises(ConfigError, match=message):
        runner.train()
    assert runner.iter == 0


# one of two processes
JOB = """
import sys

import torch
import torch.distributed as dist

folder, rank, tests = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sys.path.insert(0, tests)
dist.init_process_group(
    'gloo', f'file://{folder}/meeting', rank=rank, world_size=2
)

from test_life_regression import LifeRegressionHook, runner_of, train

from mmvitcompress.compat.cpu_ddp import enable_cpu_ddp
from mmvitcompress.errors import ConfigError

kwargs = dict(
    launcher='pytorch',
    wrap=lambda cfg: enable_cpu_ddp(cfg, 'pytorch'),
    batch_size=2,
)
try:
    runner_of(f'{folder}/refused', LifeRegressionHook(), **kwargs).train()
except ConfigError as error:
    message = str(error)
train(
    f'{folder}/single', LifeRegressionHook(None), count=1, **kwargs
)
watch, _ = train(
    f'{folder}/two',
    LifeRegressionHook(),
    find_unused_parameters=True,
    **kwargs,
)
states = [
    {key.removeprefix('module.'): value for key, value in state.items()}
    for state in watch.states
]
torch.save({'message': message, 'states': states}, f'{folder}/{rank}.pt')
dist.barrier()
dist.destroy_process_group()
"""


def test_two_processes_train_as_one(tmp_path, helpers):
    job = tmp_path / 'job.py'
    job.write_text(JOB)
    here = Path(__file__).parent
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(
                helpers.execute,
                [warm_python(), job, tmp_path, rank, here],
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE='2',
            )
            for rank in range(2)
        ]
        for done in [job.result() for job in jobs]:
            assert done.returncode == 0, done.stderr
    ranks = [
        torch.load(tmp_path / f'{rank}.pt', weights_only=True)
        for rank in range(2)
    ]
    for rank in ranks:
        assert 'find_unused_parameters=True' in rank['message']
    one, _ = train(tmp_path / 'one', LifeRegressionHook())
    for step, expected in enumerate(one.states):
        for key, value in expected.items():
            mine, theirs = (rank['states'][step][key] for rank in ranks)
            assert torch.equal(mine, theirs), key
            torch.testing.assert_close(mine, value, rtol=1e-3, atol=1e-3)
            still = key.startswith(PREDICTOR) != (step <= STEPS)
            if step and still:
                assert torch.equal(mine, ranks[0]['states'][step - 1][key])
