"""CDCP in training: what a step does, and that runs can be trusted."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from PIL import Image

from mmvitcompress.channels import (
    MacBudget,
    find_compactors,
    kept_channels,
    kept_widths,
    without,
)
from mmvitcompress.engine.hooks import CDCPHook
from mmvitcompress.errors import ConfigError, DivergenceError
from mmvitcompress.models import (
    CompressedSwin,
    CompressedViT,
)

pytestmark = pytest.mark.slow

ARCH = dict(embed_dim=24, depth=2, num_heads=3, patch_size=8, img_size=32)

CONFIG = """
custom_imports = dict(imports=['mmvitcompress'])
default_scope = 'mmvitcompress'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='CompressedViT', compactors=True, drop_path_rate=0.1,
        token_merging=dict(layers=(2,)),
        arch=dict(
            embed_dim=24, depth=2, num_heads=3, patch_size=8, img_size=32
        ),
    ),
    num_classes=3,
)
def loader(shuffle):
    return dict(
        batch_size=4, num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        dataset=dict(
            type='TimmDataset', data_root={data!r}, split='train',
            transform=dict(input_size=32, is_training=shuffle),
        ),
        collate_fn=dict(type='default_collate'),
    )
train_dataloader = loader(True)
val_dataloader = loader(False)
del loader
val_evaluator = dict(type='TopKAccuracy', topk=(1,))
val_cfg = dict(type='ValLoop')
optim_wrapper = dict(
    type='OptimWrapper', constructor='ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(compactors=dict(lr=2e-3)),
    accumulative_counts={accumulate},
)
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=False, eta_min=1e-5, end=30)
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=10, val_interval=10)
custom_hooks = [dict(
    type='CDCPHook', target=0.5, warmup_epochs=1, increment=0.05, interval=2,
    settle_epochs=2, shrink=0.2, report_interval=6,
    rules=dict(min_head_dim=2, min_mlp_dim=8),
)]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', interval=1),
)
log_processor = dict(window_size=1)
randomness = dict(seed=3)
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """12 images of three colours."""
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for target in range(3):
        (root / 'train' / str(target)).mkdir(parents=True)
        for index in range(4):
            pixels = rng.integers(0, 120, (32, 32, 3)).astype(np.uint8)
            pixels[..., target] += 120
            path = root / 'train' / str(target) / f'{target}{index}.png'
            Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def write(tmp_path, folder):
    def write(changes='', accumulate=1, name='cdcp'):
        text = CONFIG.replace('{data!r}', repr(str(folder)))
        text = text.replace('{accumulate}', str(accumulate))
        path = tmp_path / f'{name}.py'
        path.write_text(text + changes)
        return str(path)

    return write


def content(path):
    return torch.load(path, map_location='cpu', weights_only=True)


def backbone_of(path):
    """The trained backbone, from the shape that the checkpoint carries."""
    saved = content(path)
    model = CompressedViT(
        arch=dict(**ARCH, token_merging=dict(layers=(2,))),
        compactors=True,
        final_norm=True,
    )
    prefix = 'backbone.'
    model.load_state_dict(
        {
            key[len(prefix) :]: value
            for key, value in saved['state_dict'].items()
            if key.startswith(prefix)
        }
    )
    return model


def watched(model, optimizer, lam=0.1):
    """A hook whose penalty acts on the optimizer, as in a run."""
    hook = CDCPHook(0.5, lam=lam)
    hook.compactors = find_compactors(model)
    optimizer.register_step_pre_hook(hook._penalise)
    return hook.compactors


def masked_column(model, optimizer):
    compactors = watched(model, optimizer)
    compactors[0].mlp.kept[0, 0] = False
    return compactors[0].mlp.weight


def test_penalty_comes_once_per_step_of_an_accumulation():
    model = CompressedViT(arch=ARCH, compactors=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    column = masked_column(model, optimizer)
    wrapper = OptimWrapper(
        optimizer, accumulative_counts=2, clip_grad=dict(max_norm=1e-3)
    )
    wrapper.initialize_count_status(model, 0, 4)
    kept = []
    for _ in range(4):
        with wrapper.optim_context(model):
            loss = model(torch.randn(2, 3, 32, 32))[-1].square().mean()
        wrapper.update_params(loss)
        kept.append(column[0, 0, 0].item())
    # one shrinks by lr · λ per step, whatever clipping does to the rest
    assert kept == pytest.approx([1.0, 0.95, 0.95, 0.9])


def test_penalty_is_in_true_scale_under_loss_scaling():
    model = CompressedViT(arch=ARCH, compactors=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    column = masked_column(model, optimizer)
    other = model.blocks[0].mlp.fc1.compactors['mlp'].weight
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**10)
    images = torch.randn(2, 3, 32, 32)
    loss = model(images)[-1].square().mean()
    (grad,) = torch.autograd.grad(loss, other, retain_graph=True)
    before = other.detach().clone()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    assert column[0, 0, 0].item() == pytest.approx(0.95)
    # a kept column: the objective's gradient and the lasso's
    expected = before[0, 1] - 0.5 * (grad[0, 1] + 0.1 * before[0, 1])
    torch.testing.assert_close(other[0, 1], expected)
    # an overflow skips the step, the penalty included
    scaler.update()
    optimizer.zero_grad()
    scaler.scale(model(images)[-1].mean() * torch.inf).backward()
    scaler.step(optimizer)
    assert column[0, 0, 0].item() == pytest.approx(0.95)


NUMBERS = {
    'target': [float('nan'), 0, 1.5, '0.5'],
    'img_size': [0, -32, (32, 0), 'large'],
    'num_classes': [-1, 2.5, float('nan')],
    'warmup': [-1, 1.5],
    'settle_epochs': [-1, float('inf')],
    'increment': [0, -1, float('nan'), float('inf')],
    'interval': [0, 2.5],
    'lam': [float('nan'), float('inf'), -1, '1e-5'],
    'shrink': [float('nan'), 1, -0.1],
    'clear_moments': ['no', 0],
    'report_interval': [0],
    'rules': [dict(divisor=0), dict(head_level='no'), dict(heads=1)],
}


@pytest.mark.parametrize(
    ('name', 'value'), [(k, v) for k in NUMBERS for v in NUMBERS[k]]
)
def test_wrong_arguments_are_named(name, value):
    named = name if name != 'rules' else 'divisor|head_level|heads'
    with pytest.raises(ConfigError, match=f'({named})'):
        CDCPHook(**{'target': 0.5, name: value})


def test_selection_stops_at_weights_that_are_not_finite(tmp_path):
    model = CompressedViT(arch=ARCH, compactors=True)
    hook = CDCPHook(0.5)
    hook.compactors = find_compactors(model)
    hook.compactors[0].mlp.weight.data[0, 0] = float('nan')
    runner = SimpleNamespace(work_dir=tmp_path, epoch=0)
    with pytest.raises(DivergenceError, match=r'compactor .* iteration 25'):
        hook._select(runner, 25)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ("model['backbone']['compactors'] = False", 'compactors=True'),
        ("custom_hooks[0]['target'] = 0.99", 'out of reach'),
        ("custom_hooks[0]['target'] = 0.01", 'tokens alone'),
        ("custom_hooks[0]['increment'] = 0.001", 'selected for 24 only'),
        ("optim_wrapper['constructor'] = None", 'weight_decay is 0.05'),
        ("custom_hooks[0]['warmup'] = 1", 'in epochs or in iterations'),
        ("model['backbone']['out_indices'] = [0]", 'include the last'),
    ],
)
def test_refuses_before_training(write, tool, tmp_path, changes, message):
    if 'constructor' in changes:
        changes += "\noptim_wrapper.pop('paramwise_cfg')"
        changes += "\noptim_wrapper.pop('constructor')"
    code, error = tool(
        'train', write(f'\n{changes}\n'), '--work-dir', tmp_path / 'run'
    )
    assert code == 1 and message in error, error
    assert not list(tmp_path.glob('run/*.pth'))


def test_run_reaches_its_target_and_resumes_exactly(write, helpers, tmp_path):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    path = write(accumulate=2)
    assert helpers.train(path, '--work-dir', whole).returncode == 0
    # stopped between two selections, inside of the growth
    stop = """
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
@HOOKS.register_module()
class StopHook(Hook):
    def after_train_epoch(self, runner):
        if runner.epoch + 1 == 4:
            raise SystemExit(9)
"""
    (tmp_path / 'stopper.py').write_text(stop)
    stopped = write(
        accumulate=2,
        name='stopped',
        changes="""
custom_imports['imports'].append('stopper')
custom_hooks.append(dict(type='mmengine.StopHook', priority='LOWEST'))
""",
    )
    done = helpers.train(
        stopped, '--work-dir', broken, PYTHONPATH=str(tmp_path)
    )
    assert done.returncode == 9, done.stderr
    done = helpers.train(path, '--work-dir', broken, '--resume')
    assert done.returncode == 0, done.stderr

    theirs, mine = (
        content(folder / 'epoch_10.pth')['state_dict']
        for folder in (whole, broken)
    )
    for key, value in theirs.items():
        assert torch.equal(mine[key], value), key
    for key in ('cdcp_reached', 'cdcp_unconverged', 'cdcp_lasso'):
        expected = helpers.logged(whole, key)
        assert helpers.logged(broken, key) == expected

    reached = list(helpers.logged(whole, 'cdcp_reached').values())
    target = list(helpers.logged(whole, 'cdcp_target').values())
    assert reached == sorted(reached) and target[-1] == 0.5
    assert all(r >= t for r, t in zip(reached, target))
    left = list(helpers.logged(whole, 'cdcp_unconverged').values())
    assert max(left) > 0 == left[-1]
    model = backbone_of(whole / 'epoch_10.pth')
    budget = MacBudget.of(model.arch)
    widths = kept_widths(kept_channels(find_compactors(model)))
    assert reached[-1] == pytest.approx(budget.reduction_at(widths))
    kept = helpers.logged(whole, 'cdcp_kept/block2_mlp')
    assert list(kept.values())[-1] == widths[1][2]


def test_processes_agree_on_masks(write, helpers, tmp_path):
    watch = """
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
@HOOKS.register_module()
class MaskHook(Hook):
    priority = 'LOWEST'
    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        state = runner.model.module.state_dict()
        masks = {k: v.clone() for k, v in state.items() if 'kept' in k}
        name = f'{runner.work_dir}/masks_{runner.iter}_{runner.rank}.pt'
        torch.save(masks, name)
"""
    (tmp_path / 'watcher.py').write_text(watch)
    path = write("""
custom_imports['imports'].append('watcher')
custom_hooks.append(dict(type='mmengine.MaskHook'))
custom_hooks[0].update(increment=0.2, settle_epochs=0, warmup_epochs=1)
train_cfg.update(max_epochs=4)
train_dataloader['batch_size'] = 2
""")
    done = helpers.execute(
        [
            helpers.root / 'tools' / 'dist_train.sh',
            path,
            2,
            '--work-dir',
            tmp_path / 'two',
        ],
        PORT=str(helpers.free_port()),
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    masked = []
    for step in range(12):
        one, two = (
            content(tmp_path / 'two' / f'masks_{step}_{rank}.pt')
            for rank in range(2)
        )
        assert all(torch.equal(one[key], two[key]) for key in one)
        masked.append(sum(int((~mask).sum()) for mask in one.values()))
    assert masked[0] == 0 and masked[-1] > 0


def test_short_runs_are_warned(write, helpers, tmp_path):
    work_dir = tmp_path / 'run'
    changes = "custom_hooks[0]['shrink'] = 0.0\n"
    done = helpers.train(write(changes), '--work-dir', work_dir)
    assert done.returncode == 0
    assert 'CDCP may not converge' in done.stdout + done.stderr


SWIN = """
model['backbone'] = dict(
    type='CompressedSwin', compactors=True, token_merging=dict(layers=(2,)),
    arch=dict(
        family='swin', embed_dim=12, depths=(1, 1, 2, 1),
        num_heads=(1, 1, 2, 4), window_size=4, img_size=64,
    ),
)
for loader in (train_dataloader, val_dataloader):
    loader['dataset']['transform']['input_size'] = 64
del loader
custom_hooks[0].update(target=0.3)
"""


def test_swin_is_pruned_and_exported(write, tool, tmp_path):
    path, out = write(SWIN), tmp_path / 'small.pth'
    code, error = tool('train', path, '--work-dir', tmp_path / 'run')
    assert code == 0, error
    trained = tmp_path / 'run' / 'epoch_10.pth'
    code, error = tool('export_pruned', path, trained, out, '--force')
    assert code == 0, error
    small = CompressedSwin(checkpoint=str(out))
    dense = small.arch.replace(
        token_merging=None, qk_dims=None, v_dims=None, mlp_dims=None
    )
    # the exporter's divisor keeps some channels more
    assert small.arch.macs() < 0.9 * dense.macs()
    maps = small(torch.randn(1, 3, 64, 64))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (12, 16, 16),
        (24, 8, 8),
        (48, 4, 4),
        (96, 2, 2),
    ]


def test_life_regression_and_pruning_compose(write, tool, helpers, tmp_path):
    work_dir, out = tmp_path / 'run', tmp_path / 'small.pth'
    path = write("""
model['backbone'].update(
    soft_slimming=True,
    token_merging=dict(layers=(1,)),
    patch_slimming=dict(base_layer=1, layers=(1,), keep_rate=0.5),
)
custom_hooks[0].update(target=0.62, settle_epochs=3)
custom_hooks.append(dict(type='LifeRegressionHook', predictor_epochs=2))
optim_wrapper['paramwise_cfg']['predictor'] = dict(lr=1e-3)
""")
    done = helpers.train(path, '--work-dir', work_dir)
    assert done.returncode == 0, done.stderr
    code, error = tool(
        *('export_pruned', path, work_dir / 'epoch_10.pth', out, '--force'),
        *('--divisor', 1),
    )
    assert code == 0, error
    small = CompressedViT(checkpoint=str(out), out_indices=[-1]).eval()
    arch = small.arch
    assert arch.patch_slimming.keep_rate == 0.5
    assert arch.token_merging.layers == (1,)
    dense = arch.replace(
        **dict(token_merging=None, patch_slimming=None),
        **dict(qk_dims=None, v_dims=None, mlp_dims=None),
    )
    assert arch.macs() <= 0.38 * dense.macs()
    # patches leave here as they do in the run's own validation
    model = CompressedViT(
        arch=dense.replace(
            token_merging=arch.token_merging,
            patch_slimming=arch.patch_slimming,
        ),
        soft_slimming=True,
        compactors=True,
        out_indices=[-1],
    ).eval()
    state = {
        key.removeprefix('backbone.'): value
        for key, value in content(work_dir / 'epoch_10.pth')[
            'state_dict'
        ].items()
        if key.startswith('backbone.') and not key.startswith('backbone.norm.')
    }
    model.load_state_dict(state)
    masks = kept_channels(find_compactors(model))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), without(find_compactors(model), masks):
        torch.testing.assert_close(
            small(images), model(images), rtol=1e-4, atol=1e-5
        )
