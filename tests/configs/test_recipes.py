"""The ImageNet recipes reach what they are meant to, by closed form."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.channels import (
    Kinds,
    MacBudget,
    ReductionSchedule,
    SelectionRules,
    kept_widths,
    select,
)

ROOT = Path(__file__).parents[2]
RECIPES = sorted(
    path.stem
    for method in ('cait', 'cdcp')
    for path in (ROOT / 'configs/imagenet').glob(f'{method}_*_in1k.py')
)
# MACs in G and parameters in M as CAIT prints them, where it does
PAPER = {
    'cait_deit_t_in1k': (0.6, 5.1),
    'cait_deit_s_in1k': (2.1, 18.4),
    'cait_deit_b_in1k': (7.4, 71.3),
}
REDUCTIONS = {
    'cdcp_deit_t_in1k': 0.312,
    'cdcp_deit_s_in1k': 0.381,
    'cdcp_swin_t_in1k': 0.267,
    'cait_swin_t_in1k': 0.354,
}


def read(name):
    """Config of a recipe, and the arch that it prunes."""
    cfg = Config.fromfile(ROOT / f'configs/imagenet/{name}.py')
    arch = get_arch(cfg.model.backbone.arch)
    merging = cfg.model.backbone.get('token_merging')
    if merging:
        arch = arch.replace(token_merging=dict(merging))
    return cfg, arch


def random_scores(arch, seed):
    rng = np.random.default_rng(seed)
    heads = [arch.num_heads] * len(arch.qk_dims)
    if hasattr(arch, 'depths'):
        heads = np.repeat(arch.num_heads, arch.depths)
    return [
        Kinds(
            *(rng.random((h, width)) for width in (qk, qk, v)),
            rng.random((1, mlp)),
        )
        for h, qk, v, mlp in zip(
            heads, arch.qk_dims, arch.v_dims, arch.mlp_dims
        )
    ]


@pytest.mark.parametrize('name', RECIPES)
def test_target_is_met_whatever_the_scores(name):
    cfg, arch = read(name)
    (hook,) = cfg.custom_hooks
    rules = SelectionRules(**hook.rules)
    budget = MacBudget.of(arch, num_classes=1000)
    target = hook.target
    assert target == REDUCTIONS.get(name, target)
    budget.check(target, rules.floors(budget.widths))
    for seed in range(3):
        selection = select(random_scores(arch, seed), budget, target, rules)
        assert 0 <= selection.reduction - target < 0.003
        dims = zip(
            ('qk_dims', 'v_dims', 'mlp_dims'),
            zip(*kept_widths(selection.kept)),
        )
        pruned = arch.replace(**dict(dims))
        macs = pruned.macs(num_classes=1000)
        assert macs == budget.start - selection.saved
        if name in PAPER:
            expected, params = PAPER[name]
            assert abs(macs / 1e9 - expected) < 0.06
            # random scores prune all blocks alike; trained ones need not
            assert pruned.params(1000) / 1e6 == pytest.approx(params, rel=0.1)


@pytest.mark.parametrize('name', RECIPES)
def test_run_is_long_enough(name):
    cfg, arch = read(name)
    (hook,) = cfg.custom_hooks
    epoch = 1_281_167 // cfg.train_dataloader.batch_size
    budget = MacBudget.of(arch, num_classes=1000)
    schedule = ReductionSchedule(
        hook.target, budget.reduction(), hook.warmup_epochs * epoch
    )
    schedule.check((cfg.train_cfg.max_epochs - hook.settle_epochs) * epoch)


@pytest.mark.parametrize(
    ('name', 'gmacs'),
    [('deit_s', 3.2), ('deit_b', 12.3), ('vit_t', 0.9)],
)
def test_life_regression_costs_what_the_paper_says(name, gmacs):
    cfg = Config.fromfile(ROOT / f'configs/imagenet/lifeslim_{name}_in1k.py')
    slimming = dict(cfg.model.backbone.patch_slimming)
    arch = get_arch(cfg.model.backbone.arch)
    arch = arch.replace(patch_slimming=slimming)
    assert round(arch.macs(num_classes=1000) / 1e9, 1) == gmacs
