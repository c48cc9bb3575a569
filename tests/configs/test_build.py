"""Every config builds in full size, in a process that knows nothing yet."""

import json
import subprocess
import sys

import pytest
from recipes import NAME, ROOT, named, source_of

# Everything that a config names is looked up, in full size but without
# memory: on the meta device. What the libraries register is all that is
# known: nothing of mmvitcompress was imported before.
BUILD = """
import json
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
        if 'ISAID' not in cfg.dataset.type:  # which wants its folders
            DATASETS.build(dict(cfg.dataset, lazy_init=True))
    if 'collate_fn' in cfg:
        find(FUNCTIONS, cfg.collate_fn.type)

def check_surroundings(cfg, path):
    for name in ('train', 'val', 'test'):
        check_loader(cfg[f'{name}_dataloader'])
        find(LOOPS, cfg[f'{name}_cfg'].get('type', 'TestLoop'))
    evaluators = cfg.val_evaluator
    for metric in evaluators if isinstance(evaluators, list) else [evaluators]:
        METRICS.build(dict(metric, ann_file=None)
                      if 'ann_file' in metric else metric)
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
    assert cfg.custom_imports['imports'] == ['mmvitcompress']
    assert cfg.default_hooks.checkpoint.max_keep_ckpts <= 3
    # lives are learned from what the dense model says of the task
    from_dense = '_lifeslim_dinov2_' in path or '_longer' in path
    assert not cfg.resume and bool(cfg.load_from) == from_dense

def check_maps(cfg, model):
    arch = getattr(model.backbone, 'arch', None)
    finest = getattr(arch, 'patch_size', 16)
    if getattr(arch, 'family', 'vit') == 'vit':
        finest /= 4
    padded = cfg.model.data_preprocessor.get('pad_size_divisor', 1)
    size = cfg.model.data_preprocessor.get('size') or (
        -(-800 // padded) * padded, 1344)
    maps = model.extract_feat(torch.empty(2, 3, *size))
    shapes = [list(x.shape[2:]) for x in maps]
    flat = cfg.model.get('decode_head', {}).get('type', '').endswith(
        'LinearHead')  # a probe sees the blocks' own maps
    for i, shape in enumerate(shapes):
        i = 2 if flat else i
        assert shape == [-(-side // (finest * 2**i)) for side in size], shapes
    for head in ('decode_head', 'auxiliary_head'):
        # others' shapes depend on what they find, or are several
        kind = cfg.model.get(head, {}).get('type', '')
        if not kind.endswith(('UPerHead', 'FPNHead', 'FCNHead')):
            continue
        level = 2 if head == 'auxiliary_head' else 0
        classes = cfg.model[head].get('out_channels')
        classes = classes or cfg.model[head].num_classes
        logits = getattr(model, head)(maps)
        assert list(logits.shape) == [2, classes, *shapes[level]]

for name, path, backbone in json.loads(sys.argv[1]):
    if backbone:
        from mmvitcompress.engine.config import read_config
        cfg = read_config(path, None, backbone)
    else:
        cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    if 'checkpoint' in cfg.model.backbone:
        cfg.model.backbone.checkpoint = None
    # a teacher wants weights, which are not at hand
    distillation = cfg.model.pop('distillation', None)
    if distillation:
        teacher = distillation.teacher
        find(MODELS, teacher.type)
        find(MODELS, teacher.backbone.type)
    if not backbone:  # else they are those of the control
        check_surroundings(cfg, path)
    with torch.device('meta'), torch.no_grad():
        model = MODELS.build(cfg.model).eval()
        if hasattr(model, 'extract_feat'):
            check_maps(cfg, model)
    kind = type(model.backbone).__name__
    print(json.dumps([name, [cfg.default_scope, kind]]))
"""
SCOPES = {
    'segmentor': 'mmseg',
    'detector': 'mmdet',
    'classifier': 'mmvitcompress',
}
CLASSES = {
    'dense': 'CompressedViT',
    'atme': 'ATMEDeiT',
    'cdcp': 'CDCPDeiT',
    'cait': 'CAITDeiT',
    'lifeslim': 'LifeSlimDeiT',
}


@pytest.mark.slow
@pytest.mark.parametrize('kind', SCOPES)
def test_types_resolve_from_a_clean_process(kind):
    """One process for each library, so that none helps out another."""
    # MMSegmentation's own ViT can't be made without memory
    names = [name for name in named(kind) if '_mmsegvit_' not in name]
    sources = [(name, *source_of(name)) for name in names]
    # those that are files first: the others import what puts them together
    sources.sort(key=lambda source: source[2] is not None)
    done = subprocess.run(
        [sys.executable, '-c', BUILD, json.dumps(sources)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line[:2] == '["']
    built = dict(map(json.loads, lines))
    assert sorted(built) == sorted(names)
    for name, (scope, found) in built.items():
        assert scope == SCOPES[kind], name
        parts = NAME.fullmatch(name)
        if parts and kind != 'classifier':
            wanted = CLASSES[parts[2]]
            wanted = 'CompressedSwin' if 'swin' in name else wanted
            # those of DeiT by name; others are pruned in the run itself
            wanted = 'CompressedViT' if '_dinov' in name else wanted
            assert found == wanted, name
