"""Channels that go by a criterion, in whole runs."""

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from runs import classifier_runner

from mmvitcompress.channels import (
    MacBudget,
    SelectionRules,
    find_compactors,
    fold,
    kept_channels,
    kept_widths,
    select,
)
from mmvitcompress.channels.compactors import each_kind
from mmvitcompress.channels.gates import are_gates
from mmvitcompress.channels.importance import magnitudes, random_scores
from mmvitcompress.engine.export import export
from mmvitcompress.engine.hooks import CDCPHook, PruningHook
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedViT
from mmvitcompress.registry import MODELS

ARCH = dict(embed_dim=24, depth=2, num_heads=3, patch_size=8, img_size=32)
RULES = dict(min_head_dim=2, min_mlp_dim=8)
GROWTH = dict(warmup=2, increment=0.06, interval=2, rules=RULES)


def runner(folder, hook, *hooks, epochs=3, **changes):
    return classifier_runner(
        folder,
        ARCH,
        8,
        dict(compactors=True),
        [hook, *hooks],
        train_cfg=dict(max_epochs=epochs),
        optim_wrapper=dict(
            constructor='ViTOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
        ),
        **{'randomness': dict(seed=3), **changes},
    )


@pytest.mark.parametrize('criterion', ['magnitude', 'taylor', 'lfs', 'random'])
@pytest.mark.parametrize('whole_heads', [False, True])
def test_a_run_reaches_its_target(tmp_path, criterion, whole_heads):
    rules = RULES | dict(whole_heads=whole_heads)
    hook = PruningHook(
        0.3, criterion, **GROWTH | dict(rules=rules), report_interval=5
    )
    run = runner(tmp_path, hook)
    started = {k: v.clone() for k, v in run.model.state_dict().items()}
    model = run.train().eval()
    compactors = find_compactors(model.backbone)
    kept = kept_channels(compactors)
    budget = MacBudget.of(model.backbone.arch)
    assert budget.reduction_at(kept_widths(kept)) >= 0.3
    # nothing of them has learned, all else has
    assert are_gates(compactors)
    for name, value in model.state_dict().items():
        assert 'compactors' in name or not torch.equal(value, started[name])
    arch, tensors = fold(model.backbone)
    assert (arch.heads is not None) == whole_heads
    assert 1 - arch.macs() / budget.dense >= 0.3
    small = CompressedViT(arch, out_type='raw', final_norm=True)
    small.load_state_dict(tensors)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found, expected = small.eval()(x)[-1], model.backbone(x)[-1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('criterion', ['magnitude', 'random'])
def test_masks_are_what_the_criterion_says(tmp_path, criterion):
    hook = PruningHook(0.3, criterion, seed=5, **GROWTH)
    model = runner(tmp_path, hook).train().backbone
    scores = dict(
        magnitude=magnitudes, random=lambda net: random_scores(net, 5)
    )[criterion](model)
    budget, rules = MacBudget.of(model.arch), SelectionRules(**RULES)
    expected = select(scores, budget, 0.3, rules).kept
    found = kept_channels(find_compactors(model))
    for a, b in zip(each_kind(found), each_kind(expected)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('hook', [PruningHook, CDCPHook])
def test_whole_heads_are_exported(tmp_path, hook):
    """By the exporter, which compares, and CDCP's compactors as well."""
    rules = RULES | dict(whole_heads=True)
    own = dict(shrink=0.99) if hook is CDCPHook else {}
    hook = hook(0.3, settle=6, **GROWTH | dict(rules=rules), **own)
    run = runner(tmp_path, hook, epochs=5)
    model = run.train()

    def build(arch):
        config = dict(type='CompressedViT', arch=arch, compactors=False)
        return MODELS.build(dict(run.cfg.model, backbone=config))

    found = export(model, build, [torch.randn(2, 3, 32, 32)], divisor=1)
    arch = found.arch
    assert arch.heads and arch.heads_in(1) <= 3
    assert arch.macs() <= 0.7 * model.backbone.arch.macs() + 1


class Stop(Hook):
    priority = 'LOWEST'

    def after_train_epoch(self, runner):
        if runner.epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize('criterion', ['taylor', 'lfs'])
def test_a_resumed_run_goes_on(tmp_path, criterion):
    """Means over batches come from the checkpoint."""

    def make(folder, *hooks, **changes):
        hook = PruningHook(0.3, criterion, memory=0.9, **GROWTH)
        return runner(folder, hook, *hooks, **changes)

    whole = make(tmp_path / 'whole').train().state_dict()
    broken = tmp_path / 'broken'
    with pytest.raises(KeyboardInterrupt):
        make(broken, Stop()).train()
    resumed = make(broken, resume=True).train().state_dict()
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


def test_low_frequencies_leave_statistics_alone(tmp_path):
    """Batch norms see whole images only, and train on."""
    hook = PruningHook(0.3, 'lfs', **GROWTH)
    run = runner(tmp_path, hook)
    norm = run.model.add_module('norm', torch.nn.BatchNorm2d(3))
    norm = run.model.norm
    forward, seen = run.model.forward, []

    def with_norm(inputs, *args, **kwargs):
        seen.append(norm.training)
        norm(inputs)
        return forward(inputs, *args, **kwargs)

    run.model.forward = with_norm
    run.train()
    assert seen.count(False) >= 4  # selections
    assert norm.num_batches_tracked == seen.count(True) == 12


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(criterion='size'), 'criterion must be one of magnitude'),
        (dict(memory=1.0), r'memory must lie in \[0, 1\)'),
        (dict(seed=-1), 'seed must be'),
        (dict(shrink=0.1), 'shrink is about compactors'),
        (dict(target=2.0), 'target reduction'),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        PruningHook(**{'target': 0.3, **wrong})


def test_compactors_that_have_learned_are_refused(tmp_path):
    run = runner(tmp_path, PruningHook(0.3, **GROWTH))
    with torch.no_grad():
        find_compactors(run.model.backbone)[0].q.weight += 0.1
    with pytest.raises(ConfigError, match='are no gates'):
        run.train()
