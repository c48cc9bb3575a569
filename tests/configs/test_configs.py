"""Every config: its types resolve from a clean process, its model steps."""

import shutil
import subprocess
import sys
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, init_default_scope
from mmengine.structures import PixelData

from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.errors import CheckpointError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)
FAMILIES = {  # by the first pattern that fits
    'classification': ('configs/imagenet/*',),
    # these step in tests of their own
    'elsewhere': (
        '*_swin_*',
        '*_mmsegvit_*',
        'configs/cascade_*',
        'configs/mask_rcnn_*',
        'configs/mask2former_inst_*',
        'configs/mask2former_*_coco.py',
        'configs/mask2former_*_nuclei.py',
    ),
    'segmentation': (
        'configs/upernet_*',
        'configs/semfpn_*',
        'configs/mask2former_*',
    ),
}


def family_of(name):
    for family, patterns in FAMILIES.items():
        if any(fnmatch(name, pattern) for pattern in patterns):
            return family
    raise ValueError(f'{name} belongs to no family: no test builds it')


MEMBERS = {family: [] for family in FAMILIES}
for _name in CONFIGS:
    MEMBERS[family_of(_name)].append(_name)
CLASSIFICATION = MEMBERS['classification']
SEGMENTATION = MEMBERS['segmentation']

# Everything that a config names is looked up, in full size but without
# memory: on the meta device. What the libraries register is all that is
# known: nothing of mmvitcompress was imported before.
BUILD = """
import sys
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import (
    DATA_SAMPLERS, DATASETS, FUNCTIONS, HOOKS, LOOPS, METRICS, MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS, PARAM_SCHEDULERS, VISUALIZERS,
    init_default_scope)
from mmengine.visualization import Visualizer

WRAPPER = 'OptimWrapperConstructor'
Visualizer.get_instance('current')  # which some hooks ask for

def find(registry, kind):
    with registry.switch_scope_and_registry(None) as current:
        assert current.get(kind), kind

def check_loader(cfg):
    find(DATASETS, cfg.dataset.type)
    find(DATA_SAMPLERS, cfg.sampler.type)
    if 'pipeline' in cfg.dataset:
        Compose(cfg.dataset.pipeline)
    if 'collate_fn' in cfg:
        find(FUNCTIONS, cfg.collate_fn.type)

def check_surroundings(cfg):
    for name in ('train', 'val', 'test'):
        check_loader(cfg[f'{name}_dataloader'])
        find(LOOPS, cfg[f'{name}_cfg'].get('type', 'TestLoop'))
    evaluators = cfg.val_evaluator
    for metric in evaluators if isinstance(evaluators, list) else [evaluators]:
        METRICS.build(metric)
    if 'tta_pipeline' in cfg:
        Compose(cfg.tta_pipeline)
        find(MODELS, cfg.tta_model.type)
    constructor = cfg.optim_wrapper.get('constructor', 'Default' + WRAPPER)
    find(OPTIM_WRAPPER_CONSTRUCTORS, constructor)
    for scheduler in cfg.param_scheduler:
        find(PARAM_SCHEDULERS, scheduler.type)
    for hook in [*cfg.default_hooks.values(), *cfg.get('custom_hooks', [])]:
        HOOKS.build(hook)
    find(VISUALIZERS, cfg.visualizer.type)

for name in sys.argv[1:]:
    cfg = Config.fromfile(name)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.checkpoint = None
    # a teacher wants weights, which are not at hand
    distillation = cfg.model.pop('distillation', None)
    if distillation:
        teacher = distillation.teacher
        find(MODELS, teacher.type)
        find(MODELS, teacher.backbone.type)
    check_surroundings(cfg)
    shapes = []
    with torch.device('meta'), torch.no_grad():
        model = MODELS.build(cfg.model).eval()
        if hasattr(model, 'extract_feat'):
            size = cfg.model.data_preprocessor.size
            images = torch.empty(2, 3, *size)
            maps = model.extract_feat(images)
            shapes = [list(x.shape[2:]) for x in maps]
            patch = model.backbone.arch.patch_size
            assert shapes == [
                [int(side / patch * scale) for side in size]
                for scale in (4, 2, 1, 0.5)
            ], (name, shapes)
            for head in ('decode_head', 'auxiliary_head'):
                # Mask2Former's shapes depend on what it finds
                if head in cfg.model and 'mask2former' not in name:
                    logits = getattr(model, head)(maps)
                    classes = cfg.model[head].num_classes
                    level = 2 if head == 'auxiliary_head' else 0
                    assert list(logits.shape) == [2, classes, *shapes[level]]
    print(name)
"""


@pytest.mark.parametrize('family', ['segmentation', 'classification'])
def test_types_resolve_from_a_clean_process(family):
    """One process for each library, so that none helps out another."""
    names = MEMBERS[family]
    done = subprocess.run(
        [sys.executable, '-c', BUILD, *names],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.split() if line in names] == names


def narrowed(arch):
    """The same architecture with all widths divided by 8, Swin's by 4."""
    factor = 4 if arch.family == 'swin' else 8
    widths = {
        name: [width // factor for width in getattr(arch, name)]
        for name in ('qk_dims', 'v_dims', 'mlp_dims')
    }
    for name in ('head_dim', 'stem_dim'):
        if hasattr(arch, name):
            widths[name] = getattr(arch, name) // factor
    return arch.replace(embed_dim=arch.embed_dim // factor, **widths)


def narrow(model):
    """Narrow the backbone that a config asks for, and what it feeds."""
    arch = get_arch(model.backbone.arch)
    small = narrowed(arch)
    model.backbone.arch = small.to_dict()

    def replace(node):
        for key, value in node.items():
            if key in ('embed_dim', 'in_channels'):
                if value == arch.embed_dim:
                    node[key] = small.embed_dim
                elif value == [arch.embed_dim] * 4:
                    node[key] = [small.embed_dim] * 4

    neck = model.get('neck', [])
    for node in neck if isinstance(neck, list) else [neck]:
        replace(node)
    for name in ('decode_head', 'auxiliary_head'):
        replace(model.get(name, {}))


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
    narrow(cfg.model)
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


def lighten(head):
    """Fewer layers and points for Mask2Former; the wiring stays."""
    head.pixel_decoder.encoder.num_layers = 1
    head.transformer_decoder.num_layers = 2
    head.num_queries = 8
    head.train_cfg.num_points = 64


def check_decay(model, wrapper, name):
    """What is not to be decayed is not, and each parameter is learnt once."""
    values = {
        id(parameter): group
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        group = values.pop(id(parameter))
        last = key.rpartition('.')[2]
        table = last in ('pos_embed', 'cls_token') or 'query_' in key
        spared = parameter.ndim <= 1 or table or 'level_embed' in key
        assert (group['weight_decay'] == 0) == spared, key
        slow = 'mask2former' in name and 'vit_micro' not in name
        slow = slow and key.startswith('backbone.')
        scale = 0.1 if slow else 1.0
        base = wrapper.optimizer.defaults['lr']
        assert group['lr'] == pytest.approx(base * scale), key
    assert not values


@pytest.mark.parametrize('name', SEGMENTATION)
def test_segmentors_step(name):
    """Loss, backward and predict at reduced size, and the optimizer."""
    from mmseg.structures import SegDataSample

    cfg = Config.fromfile(ROOT / name)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.update(checkpoint=None, img_size=64)
    cfg.model.data_preprocessor.size = (64, 64)
    narrow(cfg.model)
    head = cfg.model.decode_head
    if head.type == 'Mask2FormerHead':
        lighten(head)
    else:
        head.channels = 16
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    batch = dict(
        inputs=[torch.randint(0, 256, (3, 64, 64)) for _ in range(2)],
        data_samples=[
            SegDataSample(
                gt_sem_seg=PixelData(
                    # blocks, as classes have shapes
                    data=torch.randint(0, head.num_classes, (1, 4, 4))
                    .repeat_interleave(16, 1)
                    .repeat_interleave(16, 2)
                ),
                metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)),
            )
            for _ in range(2)
        ],
    )
    data = model.data_preprocessor(batch, training=True)
    losses = model(**data, mode='loss')
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
        else:  # ranks patches, which has no gradient
            assert '.patch_slimming.predictor.' in parameter_name
    check_decay(model, build_optim_wrapper(model, cfg.optim_wrapper), name)
    # whole images come in all sizes
    batch['inputs'] = [image[:, :45] for image in batch['inputs']]
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(img_shape=(45, 64), ori_shape=(50, 70)))
    data = model.data_preprocessor(batch, training=False)
    with torch.no_grad():
        results = model.eval()(**data, mode='predict')
    labels = results[1].pred_sem_seg.data
    assert labels.shape == (1, 50, 70)
    assert labels.min() >= 0 and labels.max() < head.num_classes


@pytest.mark.parametrize('head', ['upernet', 'semfpn', 'mask2former'])
def test_stock_parts_give_the_same_numbers(head):
    """What speed is measured against loads the same weights."""
    outputs, weights = [], None
    for method in ('dense', 'stock'):
        cfg = Config.fromfile(
            ROOT / f'configs/{head}_{method}_deit_s_ade20k.py'
        )
        init_default_scope(cfg.default_scope)
        cfg.model.backbone.update(checkpoint=None, img_size=64)
        narrow(cfg.model)
        if head == 'mask2former':
            lighten(cfg.model.decode_head)
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval().double()
        weights = weights or model.state_dict()
        model.load_state_dict(weights)
        torch.manual_seed(0)
        with torch.no_grad():
            maps = model.extract_feat(torch.randn(1, 3, 64, 96).double())
            if head != 'mask2former':  # whose own head asks for labels
                maps = [*maps, model.decode_head(maps)]
        outputs.append(list(maps))
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-10)


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


def test_crops_of_a_folder_are_as_large_as_the_model(tmp_path):
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
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


@pytest.mark.parametrize(
    ('name', 'iters', 'images'),
    [
        ('upernet_cait_deit_s_ade20k', 160_000, 32),
        ('semfpn_cait_deit_s_ade20k', 80_000, 32),
        ('mask2former_cait_deit_s_ade20k', 160_000, 32),
        ('upernet_cait_deit_s_potsdam', 80_000, 8),
        ('upernet_cait_deit_s_isaid', 80_000, 8),
    ],
)
def test_the_paper_recipes(name, iters, images):
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    assert cfg.train_cfg.max_iters == iters
    assert cfg.param_scheduler[-1].end == iters
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.optim_wrapper.optimizer.lr == 6e-5
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.01
    assert cfg.auto_scale_lr.base_batch_size == images
    assert images % cfg.train_dataloader.batch_size == 0
    assert cfg.param_scheduler[-1].type == 'PolyLR'
    assert cfg.model.backbone.checkpoint == (
        'checkpoints/cait_deit_small_in1k.pth'
    )


@cache
def backbone_of(stem):
    backbone = Config.fromfile(ROOT / f'configs/{stem}.py').model.backbone
    return {key: backbone[key] for key in backbone if key != 'img_size'}


@pytest.mark.parametrize(
    'name',
    sorted(
        path.stem for path in (ROOT / 'configs/_base_/backbones').iterdir()
    ),
)
def test_backbones_reduce_where_the_runs_that_make_them_do(name):
    path = ROOT / f'configs/_base_/backbones/{name}.py'
    recipe = f'configs/imagenet/{name}_in1k.py'
    assert recipe in path.read_text()
    run = Config.fromfile(ROOT / recipe).model.backbone
    own = Config.fromfile(path).backbone
    wanted = reduced(run.arch, run)
    named = own.get('arch') or run.arch
    if isinstance(named, dict):
        named = {k: v for k, v in named.items() if k != '_delete_'}
    made = [reduced(named, own)]
    if '_deit_' in name:  # whose classes know where by themselves
        with torch.device('meta'):
            alone = MODELS.build(dict(type=own.type, arch=run.arch))
        made.append(reduced(alone.arch, {}))
    assert made == [wanted] * len(made)


def reduced(arch, backbone):
    """Merging and slimming of an arch that a backbone's config overrides."""
    kinds = ('token_merging', 'patch_slimming')
    changes = {kind: backbone[kind] for kind in kinds if kind in backbone}
    arch = get_arch(arch).replace(**changes)
    return [getattr(arch, kind, None) for kind in kinds]


# small versions share no checkpoint; a folder's start from the dense one
@pytest.mark.parametrize(
    'name',
    [
        name
        for name in SEGMENTATION
        if '_deit_' in name and not name.endswith(('nuclei.py', 'folder.py'))
    ],
)
def test_a_method_is_the_same_for_every_head_and_data_set(name):
    _, method, *size, _ = Path(name).stem.split('_')
    reference = f'upernet_{method}_{"_".join(size)}_ade20k'
    assert backbone_of(Path(name).stem) == backbone_of(reference)


# GMACs and millions of parameters at 224 px that CAIT reports, where it does
SIZES = {
    'cait_deit_t': (0.6, 5.1),
    'cait_deit_s': (2.1, 18.4),
    'cait_deit_b': (7.4, None),
    'cdcp_deit_s': (2.85, 13.9),
}


@pytest.mark.parametrize('name', SIZES)
def test_stand_ins_have_the_size_that_the_paper_reports(name):
    arch = get_arch(backbone_of(f'upernet_{name}_ade20k')['arch'])
    gmacs, params = SIZES[name]
    assert arch.macs(224, num_classes=1000) / 1e9 == pytest.approx(
        gmacs, rel=0.02
    )
    if params:
        assert arch.params(1000) / 1e6 == pytest.approx(params, rel=0.01)
