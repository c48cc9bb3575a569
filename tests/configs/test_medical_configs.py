"""Every recipe of the CASCADE decoder builds, steps and predicts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData

ROOT = Path(__file__).parents[2]
METHODS = ('dense', 'atme', 'cait', 'cdcp', 'lifeslim')
DATA = ('synapse', 'acdc', 'polyp')
CONFIGS = [
    *(f'configs/cascade_{m}_deit_s_{d}.py' for d in DATA for m in METHODS),
    'configs/cascade_dense_vit_micro_digits.py',
    'configs/cascade_atme_vit_micro_digits.py',
]

# on the meta device, where full size costs no memory
BUILD = """
import json, sys
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, MODELS, init_default_scope
for name in sys.argv[1:]:
    cfg = Config.fromfile(name)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.checkpoint = None
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        DATASETS.build(dict(dataset, lazy_init=True))
    evaluators = cfg.val_evaluator
    if not isinstance(evaluators, list):
        evaluators = [evaluators]
    for evaluator in evaluators:
        METRICS.build(evaluator)
    print(json.dumps([name, type(model.backbone).__name__]))
"""


def test_all_build_in_a_clean_process():
    done = subprocess.run(
        [sys.executable, '-c', BUILD, *CONFIGS],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line[:2] == '["']
    built = dict(map(json.loads, lines))
    kinds = dict(
        zip(METHODS, ('CompressedViT', 'ATMEDeiT', 'CAITDeiT', 'CDCPDeiT', ''))
    )
    kinds['lifeslim'] = 'LifeSlimDeiT'
    assert built == {n: kinds[n.split('_')[1]] for n in CONFIGS}


@pytest.mark.parametrize('name', CONFIGS)
def test_steps(name):
    """Loss, backward and predict at reduced size."""
    from mmseg.structures import SegDataSample

    cfg = Config.fromfile(ROOT / name)
    init_default_scope(cfg.default_scope)
    size = (64, 64)
    cfg.model.backbone.update(checkpoint=None, img_size=size)
    cfg.model.decode_head.widths = (8, 8, 8, 8)
    cfg.model.data_preprocessor.size = size
    if 'sizes' in cfg.model.data_preprocessor:
        cfg.model.data_preprocessor.sizes = [(96, 96)]
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    classes = cfg.model.decode_head.num_classes
    meta = dict(img_shape=size, ori_shape=(50, 70))

    def batch():
        labels = torch.randint(0, classes, (2, 1, *size))
        return dict(
            inputs=list(torch.randint(0, 256, (2, 3, *size)).byte()),
            data_samples=[
                SegDataSample(gt_sem_seg=PixelData(data=x), metainfo=meta)
                for x in labels
            ],
        )

    data = model.data_preprocessor(batch(), True)
    losses = model(**data, mode='loss')
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
        else:  # ranks patches, which has no gradient
            assert '.patch_slimming.predictor.' in parameter_name
    with torch.no_grad():
        data = model.eval().data_preprocessor(batch(), False)
        result = model(**data, mode='predict')[1].pred_sem_seg.data
    assert result.shape == (1, 50, 70)
    assert int(result.max()) < classes and int(result.min()) >= 0
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decays = {group['weight_decay'] for group in wrapper.param_groups}
    assert decays == {0.0, cfg.optim_wrapper.optimizer.weight_decay}


@pytest.mark.parametrize(
    ('data', 'size', 'images', 'batch', 'rounds'),
    [
        ('synapse', 224, 2211, 24, 150),
        ('acdc', 224, 1304, 12, 150),
        ('polyp', 352, 1450, 16, 300),
    ],
)
def test_the_recipe_is_that_of_the_paper(data, size, images, batch, rounds):
    cfg = Config.fromfile(ROOT / f'configs/cascade_dense_deit_s_{data}.py')
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.optim_wrapper.optimizer.lr == 1e-4
    assert cfg.optim_wrapper.optimizer.weight_decay == 1e-4
    assert cfg.param_scheduler == []
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == batch
    wanted = rounds * images / batch
    assert cfg.train_cfg.max_iters == pytest.approx(wanted, rel=0.02)
    assert cfg.model.backbone.img_size == (size, size)
    assert cfg.model.data_preprocessor.size == (size, size)
    assert cfg.default_hooks.checkpoint.save_best == 'mDice'
    assert cfg.default_hooks.checkpoint.interval == cfg.train_cfg.val_interval


@pytest.mark.parametrize('data', DATA)
@pytest.mark.parametrize('method', METHODS[1:])
def test_variants_differ_in_the_backbone_alone(data, method):
    name = 'configs/cascade_{}_deit_s_{}.py'
    dense = Config.fromfile(ROOT / name.format('dense', data)).to_dict()
    path = ROOT / name.format(method, data)
    variant = Config.fromfile(path).to_dict()
    dense['model'].pop('backbone')
    variant['model'].pop('backbone')
    variant.pop('backbone')
    assert variant == dense
    assert len(path.read_text().splitlines()) <= 12
