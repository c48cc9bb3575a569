"""Our backbones inside MMSegmentation's and MMDetection's models."""

import subprocess
import sys

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from small_heads import fpn, mask2former, mask_rcnn

import mmvitcompress  # noqa: F401  (lets mmcv do without compiled ops)
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.losses import add_losses, has_losses

pytestmark = pytest.mark.slow

WIDTH = 32
BACKBONES = {
    'dense': dict(type='mmvitcompress.CompressedViT'),
    'atme': dict(
        type='mmvitcompress.ATMEDeiT', token_merging=dict(layers=(2, 3))
    ),
    'slim': dict(
        type='mmvitcompress.LifeSlimDeiT',
        patch_slimming=dict(base_layer=2, layers=(2, 3)),
    ),
    'dynamic': dict(
        type='mmvitcompress.CompressedViT',
        token_sparsification=dict(layers=(2, 3)),
        soft_slimming=True,
    ),
}
ARCH = dict(
    embed_dim=WIDTH,
    depth=4,
    num_heads=2,
    patch_size=8,
    img_size=64,
    qk_dims=(16, 16, 8, 8),
    v_dims=(16, 8, 16, 8),
    mlp_dims=(64, 128, 32, 64),
)
PYRAMID = [
    dict(type='mmvitcompress.UnmergeUpsample'),
    dict(
        type='mmseg.Feature2Pyramid',
        embed_dim=WIDTH,
        rescales=[4, 2, 1, 0.5],
        norm_cfg=dict(type='BN'),
    ),
]
LEVELS = [WIDTH] * 4
STRIDES = [2, 4, 8, 16]


def backbone(method):
    return dict(**BACKBONES[method], arch=ARCH, restore=False)


def check_training(model, images, samples):
    """Every trainable parameter must get a gradient, or DDP stops."""
    auxiliary = has_losses(model)
    add_losses(model)
    losses = model(images, samples, mode='loss')
    assert ('loss_keep_ratio' in losses) == auxiliary
    total = sum(
        value.mean()
        if torch.is_tensor(value)
        else sum(v.mean() for v in value)
        for name, value in losses.items()
        if 'loss' in name
    )
    assert torch.isfinite(total)
    total.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name


def upernet(method):
    head = dict(
        type='UPerHead',
        in_channels=LEVELS,
        in_index=[0, 1, 2, 3],
        channels=16,
        num_classes=3,
        norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss'),
    )
    auxiliary = dict(
        type='FCNHead',
        in_channels=WIDTH,
        in_index=2,
        channels=16,
        num_convs=1,
        num_classes=3,
        norm_cfg=dict(type='BN'),
    )
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)),
        backbone=backbone(method),
        neck=PYRAMID,
        decode_head=head,
        auxiliary_head=auxiliary,
        test_cfg=dict(mode='whole'),
    )


@pytest.mark.parametrize('method', BACKBONES)
def test_upernet(method):
    from mmseg.structures import SegDataSample

    init_default_scope('mmseg')
    model = MODELS.build(ConfigDict(upernet(method))).train()
    labels = torch.randint(0, 3, (1, 64, 64))
    samples = [
        SegDataSample(
            gt_sem_seg=PixelData(data=labels),
            metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)),
        )
        for _ in range(2)
    ]
    check_training(model, torch.randn(2, 3, 64, 64), samples)
    # whole-image evaluation: any size
    samples[0].set_metainfo(dict(img_shape=(70, 93), ori_shape=(70, 93)))
    with torch.no_grad():
        model.eval()
        result = model(torch.randn(1, 3, 70, 93), samples[:1], mode='predict')
    assert result[0].pred_sem_seg.data.shape == (1, 70, 93)


def instances(size):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    masks = torch.zeros(2, *size, dtype=torch.uint8)
    masks[0, 4:30, 6:40] = 1
    masks[1, 20:60, 30:60] = 1
    return DetDataSample(
        gt_instances=InstanceData(
            bboxes=torch.tensor([[6.0, 4, 40, 30], [30.0, 20, 60, 60]]),
            labels=torch.tensor([0, 1]),
            masks=BitmapMasks(masks.numpy(), *size),
        ),
        metainfo=dict(
            img_shape=size,
            ori_shape=size,
            pad_shape=size,
            batch_input_shape=size,
            scale_factor=(1.0, 1.0),
        ),
    )


def run_detector(config, size=(64, 96)):
    init_default_scope('mmdet')
    model = MODELS.build(ConfigDict(config)).train()
    samples = [instances(size), instances(size)]
    images = torch.randn(2, 3, *size)
    check_training(model, images, samples)
    with torch.no_grad():
        model.eval()
        results = model(images, samples, mode='predict')
    for result in results:
        found = result.pred_instances
        assert found.masks.shape[1:] == size
        assert len(found.scores) == len(found.labels) == len(found.masks)


@pytest.mark.parametrize('method', BACKBONES)
def test_mask_rcnn(method):
    neck = [*PYRAMID, fpn(LEVELS)]
    model = mask_rcnn(
        backbone(method), neck, 2, most=5, least_score=0.0, strides=STRIDES
    )
    run_detector(model)


@pytest.mark.parametrize('method', BACKBONES)
def test_mask2former(method):
    model = mask2former(
        backbone(method), PYRAMID, LEVELS, 2, most=5, strides=STRIDES
    )
    run_detector(model)


@pytest.mark.parametrize('library', ['mmseg', 'mmdet'])
def test_types_are_found_from_a_clean_process(library):
    """With the prefix at once; plain after ``import mmvitcompress``."""
    script = f'''
import sys
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
config = dict(arch='deit_tiny', out_indices=[0])
MODELS.build(dict(type='mmvitcompress.CompressedViT', **config))
assert 'mmseg' not in sys.modules and 'mmdet' not in sys.modules
from {library}.registry import MODELS as THEIRS
init_default_scope('{library}')
import mmvitcompress
names = """CompressedViT ATMEDeiT CDCPDeiT CAITDeiT LifeSlimDeiT
UnmergeUpsample""".split()
for name in names:
    assert THEIRS.get(name) is THEIRS.get('mmvitcompress.' + name), name
THEIRS.build(dict(type='CompressedViT', **config))
THEIRS.build(dict(type='mmvitcompress.ATMEDeiT', **config))
'''
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_unknown_keys_are_named():
    config = dict(
        type='mmvitcompress.CompressedViT', arch='deit_tiny', tokn_merging={}
    )
    with pytest.raises(ConfigError, match="argument 'tokn_merging'; correct"):
        MODELS.build(config)
