"""Auxiliary losses of token methods in runs: summed, logged, learned from."""

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from runs import forget_runs
from torch.utils.data import Dataset

from mmvitcompress.engine.launch import add_training_hooks


@DATASETS.register_module(force=True)
class FewImages(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(3, 32, 32, generator=generator), index % 3


def run(folder, **backbone):
    """Train for two iterations; returns the last losses and the model."""
    forget_runs()
    arch = dict(embed_dim=24, depth=3, num_heads=3, patch_size=8, img_size=32)
    cfg = Config(
        dict(
            default_scope='mmvitcompress',
            work_dir=str(folder),
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='CompressedViT', arch=arch, **backbone),
                num_classes=3,
            ),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(type='FewImages'),
                collate_fn=dict(type='default_collate'),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            log_level='ERROR',
            launcher='none',
        )
    )
    add_training_hooks(cfg)
    runner = Runner.from_cfg(cfg)
    model = runner.train()
    values = runner.message_hub.log_scalars
    losses = {
        name.removeprefix('train/'): buffer.current()
        for name, buffer in values.items()
        if 'loss' in name
    }
    return losses, model


def test_a_run_adds_them_up(tmp_path):
    sparse = dict(token_sparsification=dict(layers=(2,)), soft_slimming=True)
    losses, model = run(tmp_path / 'sparse', **sparse)
    ours = losses.pop('loss_keep_ratio')
    total, own = losses.pop('loss'), losses.pop('loss_task')
    assert ours > 0 and abs(total - own - ours) < 1e-6 and not losses
    # the model is left as it came
    images = torch.randn(2, 3, 32, 32)
    found = model.train()(images, torch.tensor([0, 1]), mode='loss')
    assert [*found] == ['loss']
    losses, _ = run(tmp_path / 'dense')
    assert 'loss_keep_ratio' not in losses
