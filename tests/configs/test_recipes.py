"""What the recipes say, and what they reach by closed form."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import MODELS
from recipes import (
    BACKBONES,
    CONFIGS,
    FILES,
    arch_of,
    backbone_of,
    get_arch,
    named,
    random_scores,
    read,
)

from mmvitcompress.channels import (
    MacBudget,
    ReductionSchedule,
    SelectionRules,
    kept_widths,
    select,
)
from mmvitcompress.errors import CheckpointError

RECIPES = named('classifier', 'imagenet/cait_*_in1k', 'imagenet/cdcp_*_in1k')
# MACs in G and parameters in M as CAIT prints them, where it does
PAPER = {
    'imagenet/cait_deit_t_in1k': (0.6, 5.1),
    'imagenet/cait_deit_s_in1k': (2.1, 18.4),
    'imagenet/cait_deit_b_in1k': (7.4, 71.3),
    'imagenet/cdcp_deit_s_in1k': (2.85, 13.9),  # 38.1 % less than 4.608
}
REDUCTIONS = {
    'imagenet/cait_deit_t_in1k': 0.505,  # Tables VIII, XXI, XXII
    'imagenet/cait_deit_s_in1k': 0.544,
    'imagenet/cdcp_deit_t_in1k': 0.312,
    'imagenet/cdcp_deit_s_in1k': 0.381,
    'imagenet/cdcp_swin_t_in1k': 0.267,
    'imagenet/cait_swin_t_in1k': 0.354,
}


@pytest.mark.parametrize('name', RECIPES)
def test_target_is_met_whatever_the_scores(name):
    cfg = read(name)
    arch = arch_of(cfg.model.backbone)
    (hook,) = cfg.custom_hooks
    rules = SelectionRules(**hook.rules)
    budget = MacBudget.of(arch, num_classes=1000)
    target = hook.target
    assert target == REDUCTIONS.get(name, target)
    budget.check(target, budget.floors(rules))
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
            assert abs(macs / 1e9 - expected) < 0.03
            # random scores prune all blocks alike; trained ones need not
            params = pytest.approx(params, rel=0.012)
            assert pruned.params(1000) / 1e6 == params


@pytest.mark.parametrize('name', RECIPES)
def test_run_is_long_enough(name):
    cfg = read(name)
    arch = arch_of(cfg.model.backbone)
    (hook,) = cfg.custom_hooks
    epoch = 1_281_167 // cfg.train_dataloader.batch_size
    budget = MacBudget.of(arch, num_classes=1000)
    schedule = ReductionSchedule(
        hook.target, budget.reduction(), hook.warmup_epochs * epoch
    )
    schedule.check((cfg.train_cfg.max_epochs - hook.settle_epochs) * epoch)


def printed(name):
    return name in PAPER and name.startswith('imagenet/cait_deit')


@pytest.mark.parametrize('name', [*filter(printed, RECIPES)])
def test_merges_stand_where_both_printed_figures_fit(name):
    """A merge one block later, and the parameters would be others."""
    arch = arch_of(read(name).model.backbone)
    (hook,) = read(name).custom_hooks
    _, printed = PAPER[name]
    first, second = arch.token_merging.layers
    off = {}
    for layers in ((first, second), (first + 1, second), (first - 1, second)):
        moved = arch.replace(token_merging=dict(layers=layers))
        budget = MacBudget.of(moved, num_classes=1000)
        rules = SelectionRules(**hook.rules)
        kept = select(random_scores(arch, 0), budget, hook.target, rules).kept
        dims = zip(('qk_dims', 'v_dims', 'mlp_dims'), zip(*kept_widths(kept)))
        params = moved.replace(**dict(dims)).params(1000) / 1e6
        off[layers] = abs(params - printed)
    assert min(off, key=off.get) == (first, second)


LIFE_SLIM = named('classifier', 'imagenet/lifeslim_*_in1k')


@pytest.mark.parametrize('name', LIFE_SLIM)
def test_life_regression_trains_as_printed(name):
    """1e-5 and 1e-3 for 128 images a step, by plain cross-entropy (Eq. 8)."""
    cfg = read(name)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('AdamW', 1e-3)
    assert cfg.optim_wrapper.paramwise_cfg.predictor.lr == 1e-5
    assert cfg.train_dataloader.batch_size == 128
    assert cfg.auto_scale_lr.base_batch_size == 128
    assert cfg.train_cfg.max_epochs == 2 and cfg.param_scheduler == []
    others = {'distillation', 'data_preprocessor', 'label_smoothing'}
    assert not others & cfg.model.keys()


def test_swins_with_merges_are_trained_from_scratch():
    """For 300 epochs (Table XVII), by Swin's own recipe."""
    sizes = (('swin_t', 0.2), ('swin_s', 0.3))
    for method, (name, rate) in itertools.product(['atme', 'stvit'], sizes):
        cfg = read(f'imagenet/{method}_{name}_in1k')
        assert cfg.model.backbone.checkpoint is None
        assert cfg.model.backbone.drop_path_rate == rate
        assert 'distillation' not in cfg.model
        assert cfg.train_cfg.max_epochs == 300
        images = cfg.auto_scale_lr.base_batch_size
        assert cfg.train_dataloader.batch_size == images
        assert cfg.optim_wrapper.optimizer.lr == 5e-4 * images / 512
        assert cfg.param_scheduler[-1].end == 300


@pytest.mark.parametrize(
    ('name', 'gmacs'),
    [('deit_s', 3.2), ('deit_b', 12.3), ('vit_t', 0.9)],
)
def test_life_regression_costs_what_the_paper_says(name, gmacs):
    arch = arch_of(backbone_of(f'imagenet/lifeslim_{name}_in1k'))
    assert round(arch.macs(num_classes=1000) / 1e9, 1) == gmacs


# -- backbones ----------------------------------------------------------------


# GMACs and millions of parameters at 224 px that CAIT reports, where it does
SIZES = {
    'cait_deit_t': (0.623, 5.1),
    'cait_deit_s': (2.1, 18.4),
    'cait_deit_b': (7.4, 71.3),
    'cdcp_deit_s': (2.85, 13.9),
}
MERGES = {'swin_t': (5, 6), 'swin_s': (7, 13)}


@pytest.mark.parametrize('name', BACKBONES)
def test_backbones_are_those_of_the_runs_that_make_them(name):
    """Merges and slimming are, and widths that stand in for theirs."""
    path = CONFIGS / f'_base_/backbones/{name}.py'
    recipe = f'imagenet/{name}_in1k'
    assert f'configs/{recipe}.py' in path.read_text()
    file = Config.fromfile(path)
    assert {*file} == {'backbone'}  # all else is the control's
    run, own = backbone_of(recipe), backbone_of(f'upernet_{name}_ade20k')
    assert own.checkpoint == file.backbone.checkpoint
    method, family, size = name.split('_')
    long = dict(t='tiny', s='small', b='base')[size]
    checkpoint = f'checkpoints/{method}_{family}_{long}_in1k.pth'
    assert own.checkpoint == checkpoint
    dense = get_arch(f'{family}_{long}')
    made, arch = arch_of(run), arch_of(own)
    archs = [arch]
    if family == 'deit':  # whose classes know where by themselves
        with torch.device('meta'):
            alone = MODELS.build(dict(type=own.type, arch=dense))
        archs.append(alone.arch)
    kinds = ['token_merging', 'patch_slimming'][: 1 + (family == 'deit')]
    for kind in kinds:
        wanted = getattr(made, kind)
        assert [getattr(each, kind) for each in archs] == [wanted] * len(archs)
    if family == 'swin' and method != 'cdcp':
        assert arch.token_merging.layers == MERGES[f'swin_{size}']
    if method in ('cdcp', 'cait') and family == 'swin':
        (hook,) = read(recipe).custom_hooks
        reduction = 1 - arch.macs(224, 1000) / dense.macs(224, 1000)
        assert reduction == pytest.approx(hook.target, abs=0.005)
        assert not any(width % 8 for width in arch.qk_dims + arch.mlp_dims)
    if name in SIZES:
        gmacs, params = SIZES[name]
        macs = arch.macs(224, num_classes=1000)
        assert macs / 1e9 == pytest.approx(gmacs, rel=0.01)
        assert arch.params(1000) / 1e6 == pytest.approx(params, rel=0.013)


# small versions share no checkpoint; a folder's start from the dense one
@pytest.mark.parametrize(
    'name',
    [
        name
        for name in named('segmentor', '[!c]*_deit_*')
        if name in FILES and not name.endswith('_folder')
    ],
)
def test_a_method_is_the_same_for_every_head_and_data_set(name):
    _, method, *size, _ = name.split('_')
    reference = f'upernet_{method}_{"_".join(size)}_ade20k'
    own, other = ({**backbone_of(n)} for n in (name, reference))
    assert own.pop('img_size') and other.pop('img_size')
    assert own == other


@pytest.mark.parametrize('size', ['swin_t', 'swin_s'])
@pytest.mark.parametrize(
    'head', ['upernet_{}_ade20k', 'cascade_mask_rcnn_{}_coco']
)
def test_dense_swins_are_those_of_imagenet(head, size):
    own = backbone_of(head.format(f'dense_{size}'))
    assert arch_of(own) == get_arch(size)
    source = backbone_of(f'imagenet/dense_{size}_in1k')
    assert own.checkpoint == source.checkpoint


def test_small_cait_halves_the_backbone():
    """About what CAIT takes off DeiT-Small, 55 %."""
    arch = arch_of(backbone_of('mask_rcnn_cait_vit_micro_nuclei'))
    ratio = arch.macs((128, 128)) / get_arch('vit_micro').macs((128, 128))
    assert 0.4 < ratio < 0.5


@pytest.mark.parametrize(
    'name',
    [
        *(f'upernet_{m}_deit_s_ade20k' for m in ('dense', 'atme', 'cait')),
        'upernet_cait_swin_t_ade20k',
        'cascade_mask_rcnn_cait_swin_t_coco',
    ],
)
def test_the_main_job_never_starts_from_random_weights(name, tmp_path):
    cfg = read(name)
    cfg.model.backbone.checkpoint = str(tmp_path / 'none.pth')
    with pytest.raises(CheckpointError) as caught:
        MODELS.build(cfg.model)
    message = str(caught.value)
    assert 'none.pth' in message and 'tools/' in message
    assert '--cfg-options model.backbone.checkpoint=PATH' in message


# -- schedules and data -------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'length', 'images', 'lr', 'decay', 'drop_path', 'gpus'),
    [
        # CAIT IV-B; Wang et al. for aerial images
        ('upernet_cait_deit_s_ade20k', 160_000, 32, 6e-5, 0.01, 0.1, 8),
        ('semfpn_cait_deit_s_ade20k', 80_000, 32, 6e-5, 0.01, 0.1, 8),
        ('mask2former_cait_deit_s_ade20k', 160_000, 32, 6e-5, 0.01, 0.1, 8),
        ('upernet_cait_deit_s_potsdam', 80_000, 8, 6e-5, 0.01, 0.1, 1),
        ('upernet_cait_deit_s_isaid', 80_000, 8, 6e-5, 0.01, 0.1, 4),
        ('mask_rcnn_cait_deit_s_coco', 12, 16, 2e-4, 0.05, 0.1, 8),
        # Swin's own
        ('upernet_cait_swin_t_ade20k', 160_000, 16, 6e-5, 0.01, 0.3, 8),
        ('cascade_mask_rcnn_cait_swin_t_coco', 36, 16, 1e-4, 0.05, 0.2, 8),
        # CASCADE's: 150 epochs of 2211 and 1304 slices, 300 of 1450 images
        ('cascade_cait_deit_s_synapse', 14_000, 24, 1e-4, 1e-4, 0.1, 1),
        ('cascade_cait_deit_s_acdc', 16_000, 12, 1e-4, 1e-4, 0.1, 1),
        ('cascade_cait_deit_s_polyp', 27_000, 16, 1e-4, 1e-4, 0.1, 1),
    ],
)
def test_the_paper_recipes(name, length, images, lr, decay, drop_path, gpus):
    cfg = read(name)
    loop, optimizer = cfg.train_cfg, cfg.optim_wrapper.optimizer
    assert loop.get('max_iters', loop.get('max_epochs')) == length
    assert optimizer.type == 'AdamW'
    assert (optimizer.lr, optimizer.weight_decay) == (lr, decay)
    assert cfg.auto_scale_lr.base_batch_size == images
    assert cfg.train_dataloader.batch_size * gpus == images
    backbone = cfg.model.backbone
    assert backbone.drop_path_rate == drop_path
    size = 'swin_tiny' if 'swin' in name else 'deit_small'
    assert backbone.checkpoint == f'checkpoints/cait_{size}_in1k.pth'
    schedulers = cfg.param_scheduler
    if name.startswith('cascade_cait'):
        assert schedulers == []
        assert cfg.default_hooks.checkpoint.save_best == 'mDice'
        interval = cfg.default_hooks.checkpoint.interval
        assert interval == loop.val_interval
        side = 352 if 'polyp' in name else 224
        assert backbone.img_size == (side, side)
        assert cfg.model.data_preprocessor.size == (side, side)
    elif 'coco' not in name:
        assert schedulers[-1].type == 'PolyLR'
        assert schedulers[-1].end == length
    if name == 'mask_rcnn_cait_deit_s_coco':
        (resize,) = (s for s in cfg.train_pipeline if s['type'] == 'Resize')
        assert tuple(resize.scale) == (1333, 800)
    if 'cascade_mask_rcnn' in name:
        assert schedulers[1].milestones == [27, 33]


@pytest.mark.parametrize(
    ('data', 'images', 'batch', 'rounds'),
    [
        ('synapse', 2211, 24, 150),
        ('acdc', 1304, 12, 150),
        ('polyp', 1450, 16, 300),
    ],
)
def test_medical_runs_have_the_epochs_of_the_paper(
    data, images, batch, rounds
):
    cfg = read(f'cascade_dense_deit_s_{data}')
    wanted = rounds * images / batch
    assert cfg.train_cfg.max_iters == pytest.approx(wanted, rel=0.02)


def test_crops_of_a_folder_are_as_large_as_the_model(tmp_path):
    shutil.copytree(CONFIGS, tmp_path / 'configs')
    base = tmp_path / 'configs/_base_/datasets/folder.py'
    text = base.read_text()
    assert 'crop_size = (512, 512)\n' in text
    base.write_text(text.replace('(512, 512)', '(96, 128)'))
    path = tmp_path / 'configs/semfpn_atme_deit_s_folder.py'
    cfg = Config.fromfile(path)
    crop = cfg.train_dataloader.dataset.pipeline[3]
    assert crop.type == 'RandomCrop' and crop.crop_size == (96, 128)
    assert cfg.model.data_preprocessor.size == (96, 128)
    assert cfg.model.backbone.img_size == (96, 128)


def test_detectors_learn_from_many_sizes():
    """The shorter side of 480 to 800 pixels; masks go along."""
    cfg = read('cascade_mask_rcnn_dense_swin_t_coco')
    pipeline = cfg.train_dataloader.dataset.pipeline[2:]  # from memory
    polygon = [100.0, 100, 500, 100, 500, 400, 100, 400]
    transform = Compose(
        [
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            *pipeline,
        ]
    )
    np.random.seed(0)
    shorter = set()
    for _ in range(24):
        instance = dict(
            bbox=[100, 100, 500, 400],
            bbox_label=3,
            mask=[polygon],
            ignore_flag=0,
        )
        packed = transform(
            dict(
                img=np.zeros((480, 640, 3), np.uint8),
                img_shape=(480, 640),
                ori_shape=(480, 640),
                instances=[instance],
            )
        )
        height, width = packed['inputs'].shape[1:]
        assert max(height, width) <= 1333
        found = packed['data_samples'].gt_instances
        assert found.masks.masks.shape[1:] == (height, width)
        assert len(found.masks) == len(found.bboxes)
        shorter.add(min(height, width))
    assert min(shorter) >= 480 and max(shorter) <= 800 and len(shorter) > 5
