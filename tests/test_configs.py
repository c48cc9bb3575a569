"""Every config: its types resolve from a clean process, its model steps."""

import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, init_default_scope
from mmengine.structures import PixelData

from mmvitcompress.errors import CheckpointError

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)
CLASSIFICATION = [name for name in CONFIGS if 'imagenet/' in name]
ELSEWHERE = [  # steps in test_swin_configs.py
    name for name in CONFIGS if '_swin_' in name and name not in CLASSIFICATION
]
SEGMENTATION = [
    name for name in CONFIGS if 'upernet' in name and name not in ELSEWHERE
]


def pytest_generate_tests(metafunc):
    if 'family' in metafunc.fixturenames:
        families = [SEGMENTATION, CLASSIFICATION]
        assert sorted(chain(*families, ELSEWHERE)) == CONFIGS
        metafunc.parametrize('family', families, ids=['mmseg', 'own'])


BUILD = """
import sys
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
for name in sys.argv[1:]:
    cfg = Config.fromfile(name)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.checkpoint = None
    # a teacher wants weights, which are not at hand
    distillation = cfg.model.pop('distillation', None)
    if distillation:
        teacher = distillation.teacher
        assert MODELS.get(teacher.type) and MODELS.get(teacher.backbone.type)
    MODELS.build(cfg.model)
    print(name)
"""


def test_types_resolve_from_a_clean_process(family):
    """One process for each library, so that none helps out another."""
    done = subprocess.run(
        [sys.executable, '-c', BUILD, *family],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.split() if line in family] == family


class Teacher(torch.nn.Module):
    """Always says the last class."""

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, images, *args, **kwargs):
        return torch.eye(self.num_classes)[-1].expand(len(images), -1)


@pytest.mark.parametrize('name', CLASSIFICATION)
def test_classifiers_step(name):
    """Loss, backward and predict at reduced size, hooks and optimizer."""
    cfg = Config.fromfile(ROOT / name)
    init_default_scope(cfg.default_scope)
    size = 64
    cfg.model.backbone.update(checkpoint=None, img_size=size)
    classes = cfg.model.num_classes
    if 'distillation' in cfg.model:
        cfg.model.distillation.teacher = Teacher(classes)
    model = MODELS.build(cfg.model).train()
    batch = torch.randn(2, 3, size, size), torch.randint(0, classes, (2,))
    images, targets = model.data_preprocessor(batch, True)
    losses = model(images, targets, mode='loss')
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
    with torch.no_grad():
        logits = model.eval()(images, mode='predict')
    assert logits.shape == (2, classes) and logits.isfinite().all()
    assert build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    for hook in cfg.get('custom_hooks', []):
        HOOKS.build(hook)


@pytest.mark.parametrize('name', SEGMENTATION)
def test_segmentors_step(name):
    """Loss, backward and predict at reduced size."""
    from mmseg.structures import SegDataSample

    cfg = Config.fromfile(ROOT / name)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.checkpoint = None
    cfg.model.backbone.img_size = 64
    cfg.model.decode_head.channels = 16
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    classes = cfg.model.decode_head.num_classes
    shape = dict(img_shape=(64, 64), ori_shape=(64, 64))
    samples = [
        SegDataSample(
            gt_sem_seg=PixelData(data=torch.randint(0, classes, (1, 64, 64))),
            metainfo=shape,
        )
        for _ in range(2)
    ]
    images = torch.randn(2, 3, 64, 64)
    losses = model(images, samples, mode='loss')
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
    with torch.no_grad():
        results = model.eval()(images, samples, mode='predict')
    assert results[1].pred_sem_seg.data.shape == (1, 64, 64)


@pytest.mark.parametrize('method', ['dense', 'atme', 'cait'])
def test_the_main_job_never_starts_from_random_weights(method, tmp_path):
    cfg = Config.fromfile(ROOT / f'configs/upernet_{method}_deit_s_ade20k.py')
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.checkpoint = str(tmp_path / 'none.pth')
    with pytest.raises(CheckpointError) as caught:
        MODELS.build(cfg.model)
    message = str(caught.value)
    assert 'none.pth' in message and 'tools/' in message
    assert '--cfg-options model.backbone.checkpoint=PATH' in message


def test_the_paper_recipe():
    cfg = Config.fromfile(ROOT / 'configs/upernet_cait_deit_s_ade20k.py')
    assert cfg.train_cfg.max_iters == 160_000
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.optim_wrapper.optimizer.lr == 6e-5
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.01
    assert cfg.auto_scale_lr.base_batch_size == 32
    assert cfg.train_dataloader.batch_size * 8 == 32
    assert cfg.param_scheduler[-1].type == 'PolyLR'
    assert cfg.model.backbone.checkpoint == (
        'checkpoints/cait_deit_small_in1k.pth'
    )
