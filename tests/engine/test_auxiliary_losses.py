"""Auxiliary losses of token methods in runs: summed, logged, learned from."""

import pytest
import torch
from runs import classifier_runner

ARCH = dict(embed_dim=24, depth=3, num_heads=3, patch_size=8, img_size=32)
METHODS = {
    'keep_ratio': dict(
        token_sparsification=dict(layers=(2,)), soft_slimming=True
    ),
    'ponder halting_prior': dict(token_halting={}),
}


def run(folder, **backbone):
    """Train for two iterations; returns the last losses and the model."""
    runner = classifier_runner(folder, ARCH, 4, backbone)
    model = runner.train()
    values = runner.message_hub.log_scalars
    losses = {
        name.removeprefix('train/'): buffer.current()
        for name, buffer in values.items()
        if 'loss' in name
    }
    return losses, model


@pytest.mark.parametrize('names', METHODS)
def test_a_run_adds_them_up(tmp_path, names):
    losses, model = run(tmp_path / 'reduced', **METHODS[names])
    ours = [losses.pop(f'loss_{name}') for name in names.split()]
    total, own = losses.pop('loss'), losses.pop('loss_task')
    assert min(ours) > 0 and not losses
    assert total == pytest.approx(own + sum(ours), abs=1e-6)
    # the model is left as it came
    images = torch.randn(2, 3, 32, 32)
    found = model.train()(images, torch.tensor([0, 1]), mode='loss')
    assert [*found] == ['loss']


def test_a_dense_run_has_none(tmp_path):
    losses, _ = run(tmp_path)
    assert [*losses] == ['loss']
