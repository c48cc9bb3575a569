"""A good config of every registered type, and what is done with the result.

A type that needs no argument is covered by itself; what another one needs
stands in ``BASES``. What is made is used in a way that shows whether it is
right: finite numbers, of the promised size.
"""

import inspect
import json
from unittest.mock import patch

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import default_collate
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image
from runs import forget_runs
from small_heads import mask2former_head
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from mmvitcompress import registry
from mmvitcompress.engine.wrappers import cpu_has_bfloat16

ARCH = dict(embed_dim=24, depth=4, num_heads=3, patch_size=8, img_size=32)
SWIN = dict(embed_dim=12, depths=[1, 1, 3], num_heads=[2, 3, 4], img_size=32)
NORM = dict(type='BN')
SHARED = dict(in_channels=[24] * 4, num_classes=3, in_index=[0, 1, 2, 3])
SHARED |= dict(channels=8, norm_cfg=NORM)
META = dict(classes=('a', 'b'), palette=[(0, 0, 0), (9, 9, 9)])
VIT = dict(type='mmvitcompress.CompressedViT', arch=ARCH, compactors=True)
CLASSIFIER = dict(
    type='mmvitcompress.ImageClassifier', backbone=VIT, num_classes=3
)
PIXELS = mask2former_head([24] * 4, 3)['pixel_decoder']
SIDES = 32, 16, 8, 4


def _pairs(folder):
    rng = np.random.default_rng(0)
    for kind, shape in ('images', (16, 24, 3)), ('maps', (16, 24)):
        (folder / kind).mkdir(exist_ok=True)
        for name in 'ab':
            high = 256 if kind == 'images' else 2
            pixels = rng.integers(0, high, shape, np.uint8)
            Image.fromarray(pixels).save(folder / kind / f'{name}.png')
    prefix = dict(img_path='images', seg_map_path='maps')
    steps = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')
    return dict(data_root=str(folder), data_prefix=prefix, pipeline=[*steps])


def _folders(folder):
    for name in 'xy':
        (folder / 'val' / name).mkdir(parents=True)
        pixels = np.zeros((16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / 'val' / name / 'a.png')
    size = dict(input_size=16, crop_pct=1.0)
    return dict(data_root=str(folder), split='val', transform=size)


def coco(folder):
    """Two images of 24×16 with one object each."""
    path = folder / 'coco.json'
    _pairs(folder)
    square = [[2, 2, 10, 2, 10, 10, 2, 10]]
    content = dict(
        images=[
            dict(id=i, file_name=f'{name}.png', height=16, width=24)
            for i, name in enumerate('ab')
        ],
        annotations=[
            dict(id=i + 1, image_id=i, category_id=1, bbox=[2, 2, 8, 8])
            | dict(area=64.0, iscrowd=0, segmentation=square)
            for i in range(2)
        ],
        categories=[dict(id=1, name='nucleus')],
    )
    path.write_text(json.dumps(content))
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    ]
    return dict(
        data_root=str(folder),
        ann_file='coco.json',
        data_prefix=dict(img='images'),
        metainfo=dict(classes=('nucleus',)),
        pipeline=steps,
    )


BASES = dict(
    CompressedSwin=lambda _: dict(arch=SWIN),
    ImageClassifier=lambda _: dict(backbone=VIT, num_classes=3),
    FeatureDistiller=lambda _: dict(backbone=VIT, teacher=VIT),
    LinearHead=lambda _: dict(
        in_channels=[24] * 4, num_classes=3, norm_cfg=NORM
    ),
    TimmClassifier=lambda _: dict(name='vit_tiny_patch16_224', num_classes=3),
    UnmergeFPN=lambda _: dict(embed_dim=24, out_channels=8, norm_cfg=NORM),
    UnmergeGuided=lambda _: dict(embed_dim=24),
    UnmergePyramid=lambda _: dict(embed_dim=24, norm_cfg=NORM),
    FastConv2d=lambda _: dict(in_channels=24, out_channels=8, kernel_size=3),
    FastFPNHead=lambda _: SHARED | dict(feature_strides=[1, 2, 4, 8]),
    FastUPerHead=lambda _: SHARED | dict(pool_scales=(1, 3)),
    CascadeDecodeHead=lambda _: dict(
        in_channels=[24] * 4,
        widths=(4, 6, 8, 10),
        num_classes=3,
        in_index=[0, 1, 2, 3],
    ),
    WindowMask2FormerHead=lambda _: mask2former_head(
        [24] * 4, 3, num_classes=3
    ),
    FastMSDeformAttnPixelDecoder=lambda _: (
        PIXELS
        | dict(
            in_channels=[24] * 4,
            strides=[4, 8, 16, 32],
            feat_channels=16,
            out_channels=16,
        )
    ),
    MultiScalePreProcessor=lambda _: dict(sizes=[(16, 16)], size=(32, 32)),
    FolderDataset=lambda folder: _pairs(folder) | dict(metainfo=META),
    CheckedPotsdamDataset=lambda folder: (
        _pairs(folder) | dict(seg_map_suffix='.png', img_suffix='.png')
    ),
    CheckedISAIDDataset=lambda folder: (
        _pairs(folder) | dict(seg_map_suffix='.png', img_suffix='.png')
    ),
    CheckedCocoDataset=coco,
    DigitInstancesDataset=lambda folder: (
        coco(folder) | dict(metainfo=dict(classes=('nucleus',)))
    ),
    NucleiDataset=coco,
    TimmDataset=_folders,
    UnlabelledImages=lambda folder: dict(
        data_root=_pairs(folder)['data_root'],
        transform=dict(input_size=16),
    ),
    BFloat16OptimWrapper=lambda _: dict(
        optimizer=torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    ),
    TimmIterableDataset=lambda folder: _folders(folder) | dict(name='wds/x'),
    RepeatedAugSampler=lambda _: dict(dataset=range(8)),
    CDCPHook=lambda _: dict(target=0.1, increment=0.05, interval=1),
    PruningHook=lambda _: dict(target=0.1, increment=0.05, interval=1),
    ViTOptimWrapperConstructor=lambda _: dict(
        optim_wrapper_cfg=dict(
            type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)
        )
    ),
    TopKAccuracy=lambda _: dict(topk=(1, 2)),
    CompressionVisualizationHook=lambda _: dict(kinds=['features']),
)
UNBUILT = ('TimmIterableDataset',)  # needs packages that tests don't have
# teach, or change as a run goes on, what only models of their own have: see
# tests/engine
OF_OTHERS = (
    *('TaskTeacherHook', 'KeepRateHook', 'TokenRateHook', 'TokenStageHook'),
)


def types():
    """(registry, name) of every registered type."""
    for kind in vars(registry).values():
        if isinstance(kind, registry.SharedRegistry):
            kind.import_from_location()
            for name in kind.lazy:
                kind.get(name)
            names = [n for n in kind.module_dict if n not in OF_OTHERS]
            yield from ((kind, name) for name in names)


def arguments(cls):
    """The arguments of a type with their defaults, and which are our own."""
    found, ours = {}, set()
    for each in cls.__mro__:
        if '__init__' not in vars(each):
            continue
        parameters = inspect.signature(each.__init__).parameters.values()
        for one in list(parameters)[1:]:
            if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
                continue
            found.setdefault(one.name, one.default)
            if each.__module__.startswith('mmvitcompress'):
                ours.add(one.name)
        kinds = {p.kind for p in parameters}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return found, ours


def base(name, cls, folder):
    """Arguments that a type is right with."""
    if name in BASES:
        return BASES[name](folder)
    known, _ = arguments(cls)
    if 'arch' in known:  # named forms reduce tokens before block 10
        return dict(arch=ARCH | dict(depth=4 if name in VIT['type'] else 10))
    if 'metainfo' in known or 'seg_map_suffix' in known:
        return _pairs(folder)
    return {}


def build(kind, config):
    """Build a config as a run of the right library would."""
    init_default_scope('mmdet' if 'with_bbox' in str(config) else 'mmseg')
    return kind.build(ConfigDict(config))


def use(kind, config, folder):
    """Build a config, and do with it what it is for."""
    if kind is registry.HOOKS:
        _train(config, folder)
        return
    if kind is registry.OPTIM_WRAPPER_CONSTRUCTORS:
        constructor = build(kind, config)
        model = registry.MODELS.build(CLASSIFIER)
        wrapper = constructor(model)
        assert isinstance(wrapper, OptimWrapper)
        held = {id(p) for g in wrapper.param_groups for p in g['params']}
        assert held >= {id(p) for p in model.parameters()}
        return
    made = build(kind, config)
    if kind is registry.OPTIM_WRAPPERS:
        layer = nn.Linear(2, 2)
        with made.optim_context(layer):
            low = torch.bfloat16 if cpu_has_bfloat16() else torch.float32
            assert layer(torch.ones(1, 2)).dtype == low
        return
    if kind is registry.DATASETS:
        assert len(made) and made[0]
    elif kind is registry.DATA_SAMPLERS:
        assert {*made} <= {*range(8)}
    elif kind is registry.METRICS:
        _evaluate(made)
    elif kind is registry.MODELS:
        with torch.no_grad():
            _finite(_forward(made.eval()))


def _forward(model):
    torch.manual_seed(0)
    image = torch.rand(2, 3, 32, 40)
    maps = [torch.rand(2, 24, side, side) for side in SIDES]
    labels = torch.randint(0, 2, (2, 8, 8))
    name = type(model).__name__
    if hasattr(model, 'arch'):
        found = model(image)
        assert len(found) == len(model.out_indices)
        return [getattr(each, 'tokens', each) for each in found]
    if name == 'FeatureDistiller':
        return [*model(image, mode='loss').values()]
    if name == 'ImageClassifier' or name == 'TimmClassifier':
        side = 32 if name == 'ImageClassifier' else 224
        logits = model(torch.rand(2, 3, side, side))
        assert logits.shape == (2, model.num_classes)
        return logits
    if name.endswith('Loss'):
        classes = 1 if 'Structure' in name else 3
        return model(torch.randn(2, classes, 8, 8), labels)
    if name == 'MixupPreprocessor':
        images, soft = model((image, torch.tensor([0, 1])), training=True)
        assert torch.allclose(soft.sum(1), torch.ones(2), atol=1e-3)
        return images
    if name == 'MultiScalePreProcessor':
        return model(dict(inputs=[image[0]], data_samples=None))['inputs']
    if name == 'FastConv2d':
        return model(torch.rand(2, model.in_channels, 8, 8))
    if name == 'WindowMask2FormerHead':
        return [x for part in model(maps, []) for x in part]
    if name.startswith('Unmerge'):
        merged = VIT | dict(restore=False, token_merging=[2])
        maps = registry.MODELS.build(merged).eval()(image)
    return model(maps)


def _finite(value):
    if isinstance(value, Tensor):
        assert value.numel() and value.isfinite().all()
    for inner in value if isinstance(value, list | tuple) else ():
        _finite(inner)


def _evaluate(metric):
    if type(metric).__name__ == 'FeatureError':
        sums = torch.tensor([[1.0, 2.0, 0.0, 1.0]])  # of one block
        metric.process(None, [sums, sums])
        assert metric.evaluate(2)['feature_error'] == 0.5
        return
    if type(metric).__name__ == 'TopKAccuracy':
        logits = torch.eye(8)
        metric.process((None, torch.arange(8)), list(logits))
        assert {*metric.evaluate(8).values()} == {100.0}
        return
    metric.dataset_meta = dict(classes=('a', 'b'))
    labels = torch.tensor([[[0, 1], [1, 1]]])
    sample = dict(img_path='d/x_slice1.png')
    sample |= dict(pred_sem_seg=dict(data=labels))
    sample |= dict(gt_sem_seg=dict(data=labels))
    metric.process({}, [sample])
    assert metric.evaluate(1).popitem()[1] == 100.0


def _train(config, folder):
    """Four steps with a hook."""
    forget_runs()
    life = 'Life' in config['type']
    slimming = dict(base_layer=1, layers=[2, 3])
    backbone = VIT | dict(compactors=not life, soft_slimming=life)
    if life:
        backbone |= dict(patch_slimming=slimming)
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8) % 3
    loader = dict(
        batch_size=4,
        dataset=TensorDataset(images, labels),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=default_collate,
    )
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3))
    wrapper['constructor'] = 'mmvitcompress.ViTOptimWrapperConstructor'
    with patch.object(Runner, '_log_env'):  # which asks for compilers
        runner = Runner(
            model=CLASSIFIER | dict(backbone=backbone),
            work_dir=str(folder / 'work'),
            train_dataloader=loader,
            val_dataloader=loader,
            val_cfg=dict(),
            val_evaluator=dict(type='mmvitcompress.TopKAccuracy', topk=(1,)),
            train_cfg=dict(by_epoch=True, max_epochs=2),
            optim_wrapper=wrapper,
            default_hooks=dict(checkpoint=None),
            custom_hooks=[config],
            default_scope='mmvitcompress',
            log_level='ERROR',
            experiment_name='malformed',
        )
    model = runner.train()
    _finite([value for value in model.state_dict().values()])
    assert isinstance(model, nn.Module) and runner.iter == 4
