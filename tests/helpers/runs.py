"""Runs in one process: a small one, and what they leave behind."""

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin
from torch.utils.data import Dataset

from mmvitcompress.engine.launch import add_training_hooks


def forget_runs(kind=ManagerMixin):
    """Forget the loggers and so on that MMEngine keeps by name.

    Runs are named by the second; the default scope is kept in the same way.
    """
    for subclass in kind.__subclasses__():
        for visualizer in subclass._instance_dict.values():
            if hasattr(visualizer, 'close'):
                visualizer.close()  # TensorBoard writes until then
        subclass._instance_dict.clear()
        forget_runs(subclass)


@DATASETS.register_module()
class Noise(Dataset):
    """Random images of three classes."""

    def __init__(self, count, size):
        self.count, self.size = count, size

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.randn(3, self.size, self.size, generator=generator)
        return image, index % 3


def classifier_runner(folder, arch, images, backbone, hooks=(), **changes):
    """The runner of a classifier on so many random images, two a step."""
    forget_runs()
    content = dict(
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
            dataset=dict(type='Noise', count=images, size=arch['img_size']),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        log_level='ERROR',
        launcher='none',
    )
    cfg = Config(content)
    cfg.merge_from_dict(changes)
    add_training_hooks(cfg)
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    return runner
