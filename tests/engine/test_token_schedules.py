"""Keep rates that fall, rates that are learned alone: whole runs."""

import json
import math

import pytest
import torch
from mmengine.hooks import Hook
from runs import classifier_runner

from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.engine.hooks import (
    KeepRateHook,
    TokenRateHook,
    TokenStageHook,
)
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedViT

ARCH = dict(embed_dim=24, depth=4, num_heads=3, patch_size=8, img_size=64)


def runner(folder, hook, lr=0.01, epochs=1, **backbone):
    optimizer = dict(type='AdamW', lr=lr, weight_decay=0.5)
    return classifier_runner(
        folder,
        ARCH,
        12,
        backbone,
        [hook],
        train_cfg=dict(max_epochs=epochs),
        optim_wrapper=dict(optimizer=optimizer),
        randomness=dict(seed=3),
    )


class Watch(Hook):
    """Patches that the last block met in each iteration."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.met = []
        block = runner.model.backbone.blocks[-1]
        block.register_forward_pre_hook(
            lambda _, args: self.met.append(args[0].shape[1] - 1)
        )


def test_keep_rates_fall_by_a_cosine(tmp_path):
    spec = dict(layers=(2,), keep_rate=0.5)
    hook = KeepRateHook(begin=1 / 6, end=5 / 6)
    run = runner(tmp_path, hook, token_reorganization=spec)
    run.register_hook(watch := Watch())
    model = run.train().backbone
    rates = [1, 1] + [
        0.5 + 0.5 * (1 + math.cos(math.pi * step / 4)) / 2
        for step in (1, 2, 3, 4)
    ]
    # and one for all that are fused
    expected = [math.ceil(rate * 64 - 1e-9) + (rate < 1) for rate in rates]
    assert watch.met == expected == [64, 64, 61, 49, 38, 33]
    assert model.token_reorganization.spec.keep_rate == 0.5
    hook.before_train_iter(run, 0)
    hook.before_val(run)
    assert model.token_reorganization.spec.keep_rate == 0.5


def test_stages_come_late(tmp_path):
    spec = dict(first=2, stages=(2, 4))
    hook = TokenStageHook(begin=0.5)
    run = runner(tmp_path, hook, token_evolution=spec)
    seen = []

    class Stages(Hook):
        priority = 'LOWEST'

        def before_train_iter(self, runner, *_, **__):
            method = runner.model.backbone.token_evolution
            seen.append(method.spec.stages)

    run.register_hook(Stages())
    model = run.train().backbone
    assert seen == [(), (), (), (2, 4), (2, 4), (2, 4)]
    assert model.token_evolution.spec.stages == (2, 4)
    with pytest.raises(ConfigError, match='fraction of the run'):
        TokenStageHook(begin=-1)


def test_a_schedule_needs_a_rate(tmp_path):
    with pytest.raises(ConfigError, match='leave the hook out'):
        runner(tmp_path, KeepRateHook(), token_merging=[2]).train()
    for wrong in (dict(begin=0.5, end=0.5), dict(end=2)):
        with pytest.raises(ConfigError, match='fractions of the run'):
            KeepRateHook(**wrong)


def test_rates_are_learned_alone(tmp_path):
    rates = dict(keep_rate=0.95, target=0.35)
    run = runner(
        tmp_path,
        TokenRateHook(),
        lr=0.2,
        epochs=8,
        token_rates=rates,
        soft_slimming=True,
    )
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    model = run.train()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != ('.rates.' in name), name
    assert all(p.requires_grad for p in model.parameters())
    content = json.loads((tmp_path / 'learned_arch.json').read_text())
    arch = get_arch(str(tmp_path / 'learned_arch.json'))
    assert arch.to_dict() == content
    dense = arch.with_reductions()
    assert abs(1 - arch.macs() / dense.macs() - 0.35) < 0.06
    # what the run evaluates is what the arch says
    weights = {k: v for k, v in before.items() if k.startswith('backbone.')}
    plain = CompressedViT(arch, out_type='raw', final_norm=True).eval()
    plain.load_state_dict(
        {k[9:]: v for k, v in weights.items() if 'token_rates' not in k}
    )
    x = torch.randn(2, 3, 64, 64)
    found = model.eval().backbone(x)[-1]
    torch.testing.assert_close(found, plain(x)[-1])


def test_nothing_to_learn_is_refused(tmp_path):
    with pytest.raises(ConfigError, match='soft_slimming=True'):
        rates = dict(keep_rate=0.9)
        runner(tmp_path, TokenRateHook(), token_rates=rates).train()
