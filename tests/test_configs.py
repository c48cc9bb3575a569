"""Every config: its types resolve from a clean process, its model steps."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData

from mmvitcompress.errors import CheckpointError

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)
SEGMENTATION = [name for name in CONFIGS if 'upernet' in name]


@pytest.mark.parametrize('name', CONFIGS)
def test_types_resolve_from_a_clean_process(name):
    script = f"""
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
cfg = Config.fromfile({name!r})
init_default_scope(cfg.default_scope)
cfg.model.backbone.checkpoint = None
MODELS.build(cfg.model)
"""
    done = subprocess.run(
        [sys.executable, '-c', script],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


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
