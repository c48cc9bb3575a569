"""Every model learns and predicts, at reduced size.

Steps tell whether parts fit together. Data sets change the number of classes
and the size only, so that with another backbone one of each head is stepped.
"""

import re

import numpy as np
import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS
from mmengine.structures import InstanceData, PixelData
from recipes import FILES, get_arch, kind_of, named, read

from mmvitcompress.tokens import METHODS
from mmvitcompress.tokens.losses import collect_losses

pytestmark = pytest.mark.slow

SIZE = 64  # of images, in pixels
EVEN = 56  # whole patches of 14, an even number of them


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(0)


# -- smaller models -----------------------------------------------------------


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


def dims_of(arch):
    return arch.dims if arch.family == 'swin' else [arch.embed_dim]


def side_of(model):
    """Height and width of small images for a config's model."""
    arch = get_arch(model.backbone.arch)
    return EVEN if getattr(arch, 'patch_size', 16) == 14 else SIZE


def narrow(model):
    """Narrow the backbone that a config asks for, and what it feeds."""
    size = side_of(model)
    model.backbone.update(checkpoint=None, img_size=(size, size))
    arch = get_arch(model.backbone.arch)
    small = narrowed(arch)
    model.backbone.arch = small.to_dict()
    fewer = dict(zip(dims_of(arch), dims_of(small)))
    neck = model.get('neck') or []
    heads = ('decode_head', 'auxiliary_head', 'panoptic_head')
    for node in (
        *(neck if isinstance(neck, list) else [neck]),
        *(model.get(head) for head in heads),
    ):
        if not isinstance(node, dict):  # none, or only whether there is one
            continue
        for key in ('embed_dim', 'in_channels'):
            value = node.get(key)
            if isinstance(value, int):
                node[key] = fewer.get(value, value)
            elif value:
                node[key] = [fewer.get(each, each) for each in value]


def lighten(head):
    """Fewer layers and points for Mask2Former; the wiring stays."""
    head.pixel_decoder.encoder.num_layers = 1
    head.transformer_decoder.num_layers = 2
    head.num_queries = 8
    if 'train_cfg' in head:
        head.train_cfg.num_points = 64


def thin(node):
    """Few channels wherever a detector has 256 of them, or 1024."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if key.endswith('channels') and value in (256, 1024):
            node[key] = 16
    for value in node.values() if isinstance(node, dict) else node:
        if isinstance(value, dict | list):
            thin(value)


def shrink(model):
    """A segmentor or detector for small images."""
    narrow(model)
    if model.type == 'EncoderDecoder':
        model.data_preprocessor.size = model.backbone.img_size
        if 'sizes' in model.data_preprocessor:
            model.data_preprocessor.sizes = [(96, 96)]
        head = model.decode_head
        if head.type.endswith('Mask2FormerHead'):
            lighten(head)
        elif 'widths' in head:
            head.widths = (8, 8, 8, 8)
        elif not head.type.endswith('LinearHead'):  # as wide as its maps
            head.channels = 16
        return
    model.data_preprocessor.pop('batch_augments', None)
    if model.type == 'Mask2Former':
        lighten(model.panoptic_head)
        model.train_cfg.num_points = 64
        model.test_cfg.max_per_image = 5
        return
    for part in (model.neck, model.rpn_head, model.roi_head):
        thin(part)
    rcnn = model.train_cfg.rcnn
    for stage in rcnn if isinstance(rcnn, list) else [rcnn]:
        stage.sampler.num = 16
    for proposals in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
        proposals.update(nms_pre=50, max_per_img=20)
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=5)


# -- data ---------------------------------------------------------------------


def label_maps(classes, size):
    """Two images, and maps of blocks, as classes have shapes."""
    from mmseg.structures import SegDataSample

    samples = []
    for labels in torch.randint(0, classes, (2, 1, 4, 4)):
        for axis in (1, 2):
            labels = labels.repeat_interleave(size // 4, axis)
        shape = dict(img_shape=(size, size), ori_shape=(size, size))
        sample = SegDataSample(metainfo=shape)
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    images = torch.randint(0, 256, (2, 3, size, size))
    return dict(inputs=[*images], data_samples=samples)


def instances(classes):
    """Two images with two squares in each."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    rng = np.random.default_rng(0)
    inputs, samples = [], []
    for index in range(2):
        masks = np.zeros((2, SIZE, SIZE), np.uint8)
        boxes = torch.tensor([[4.0, 6, 28, 30], [34, 20, 62, 60]])
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        image = rng.integers(0, 60, (3, SIZE, SIZE)) + 120 * masks.sum(0)
        shape = dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE))
        sample = DetDataSample(
            metainfo=dict(shape, scale_factor=(1.0, 1.0), img_id=index)
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes,
            labels=torch.tensor([0, classes - 1]),
            masks=BitmapMasks(masks, SIZE, SIZE),
        )
        sample.ignored_instances = InstanceData(bboxes=boxes[:0])
        inputs.append(torch.from_numpy(image).byte())
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


# -- checks -------------------------------------------------------------------


def build(cfg):
    """A config's model, small, for one process."""
    shrink(cfg.model)
    return revert_sync_batchnorm(MODELS.build(cfg.model))


def check_learning(model, losses, unused=False):
    """A finite loss and, or DDP stops, a gradient for every parameter.

    Args:
        model: That learns.
        losses: Of a batch.
        unused: Whether DDP is told to look for unused parameters.
    """
    total, _ = model.parse_losses(losses)
    assert total.isfinite()
    total.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert unused or parameter.grad is not None, name
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all(), name
        elif name.startswith('backbone.') and model.backbone.frozen_stages < 0:
            # ranks patches, which has no gradient
            assert '.patch_slimming.predictor.' in name


def check_optimizer(model, settings):
    """What is not to be decayed is not, and each parameter is learnt once."""
    wrapper = build_optim_wrapper(model, settings)
    values = {
        id(parameter): group
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    options = settings.get('paramwise_cfg', {})
    custom = options.get('custom_keys', {})
    decay = options.get('layer_decay', 1)
    spared = ['pos_embed', 'cls_token', 'reg_token']
    spared.append('relative_position_bias_table')
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        group, last = values.pop(id(parameter)), key.rpartition('.')[2]
        free = parameter.ndim <= 1 or last in spared
        free |= any(name in key for name in custom if name != 'backbone')
        free |= '.compactors.' in key  # only CDCP's lasso pulls at them
        assert (group['weight_decay'] == 0) == free, key
        lr = wrapper.optimizer.defaults['lr']
        if key.startswith('backbone.'):
            lr *= custom.get('backbone', {}).get('lr_mult', 1)
            lr *= decay ** (13 - layer_of(key)) if decay != 1 else 1
        assert group['lr'] == pytest.approx(lr), key
    assert not values
    return custom


def layer_of(key):
    """Where a parameter of a ViT of 12 blocks stands, from the stem (0) on.

    A merge before a block belongs to it, the predictor of lives to block 4,
    after which it looks; the last norm comes after all.
    """
    if key.startswith('backbone.patch_slimming.'):
        return 4
    block = re.match(r'backbone\.(?:blocks|token_merging\D*)\.(\d+)\.', key)
    if block:
        return int(block[1]) + 1
    return 13 if key.startswith('backbone.norm') else 0


def check_strides(model, cfg):
    """What anchors, regions and queries take for granted is so."""
    arch = model.backbone.arch
    patch = 16 if arch.family == 'swin' else arch.patch_size
    height, width = 8 * patch, 4 * patch
    with torch.no_grad():
        maps = model.extract_feat(torch.zeros(1, 3, height, width))
    if cfg.type == 'Mask2Former':
        strides = list(cfg.panoptic_head.strides)
    else:
        strides = [side for side, _ in model.rpn_head.prior_generator.strides]
        regions = cfg.roi_head.bbox_roi_extractor.featmap_strides
        assert strides[: len(regions)] == list(regions)
    for x, stride in zip(maps, strides, strict=True):
        assert x.shape[2:] == (height // stride, width // stride)


# -- tests --------------------------------------------------------------------


class Teacher(torch.nn.Module):
    """Always says the last class."""

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, images, *args, **kwargs):
        return torch.eye(self.num_classes)[-1].expand(len(images), -1)


@pytest.mark.parametrize('name', named('classifier'))
def test_classifiers_step(name):
    """Loss, backward and predict; hooks and optimizer."""
    cfg = read(name)
    narrow(cfg.model)
    classes = cfg.model.num_classes
    distillation = cfg.model.get('distillation') or {}
    if distillation.get('tokens'):  # as wide, and nothing leaves
        backbone = dict(cfg.model.backbone, soft_slimming=False)
        backbone |= {key: None for key in METHODS if key in backbone}
        distillation.teacher = MODELS.build(
            dict(
                type='ImageClassifier', backbone=backbone, num_classes=classes
            )
        )
    elif distillation:
        distillation.teacher = Teacher(classes)
    model = MODELS.build(cfg.model).train()
    batch = torch.randn(2, 3, SIZE, SIZE), torch.randint(0, classes, (2,))
    images, targets = model.data_preprocessor(batch, True)
    with collect_losses() as auxiliary:
        losses = model(images, targets, mode='loss')
    total = sum(v for k, v in losses.items() if 'loss' in k)
    (total + sum(auxiliary.values())).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
    with torch.no_grad():
        logits = model.eval()(images, mode='predict')
    assert logits.shape == (2, classes) and logits.isfinite().all()
    assert build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    for hook in cfg.get('custom_hooks', []):
        HOOKS.build(hook)


SAMPLE = named('segmentor', '*_ade20k', 'cascade_*_polyp')


@pytest.mark.parametrize(
    'name',
    [
        name
        for name in named('segmentor')
        if name in (*FILES, *SAMPLE)
        and '_mmsegvit_' not in name  # measured in tests/analysis
    ],
)
def test_segmentors_step(name):
    """Loss, backward and predict, and the optimizer."""
    cfg = read(name)
    model = build(cfg).train()
    classes = cfg.model.decode_head.num_classes
    size = side_of(cfg.model)
    batch = label_maps(classes, size)
    data = model.data_preprocessor(batch, training=True)
    unused = cfg.get('find_unused_parameters', False)
    check_learning(model, model(**data, mode='loss'), unused)
    custom = check_optimizer(model, cfg.optim_wrapper)
    large = 'mask2former' in name and 'vit_micro' not in name
    assert {*custom} >= ({'backbone', 'query_embed'} if large else set())
    # whole images come in all sizes
    batch['inputs'] = [image[:, :45] for image in batch['inputs']]
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(img_shape=(45, size), ori_shape=(50, 70)))
    data = model.data_preprocessor(batch, training=False)
    with torch.no_grad():
        results = model.eval()(**data, mode='predict')
    labels = results[1].pred_sem_seg.data
    assert labels.shape == (1, 50, 70)
    assert labels.min() >= 0 and labels.max() < classes


@pytest.mark.parametrize('name', named('detector'))
def test_detectors_step(name):
    """Loss, backward and predict; strides, and the optimizer."""
    cfg = read(name)
    model = build(cfg)
    if cfg.model.type == 'Mask2Former':
        classes = cfg.model.panoptic_head.num_things_classes
    else:
        head = cfg.model.roi_head.bbox_head
        classes = (head[0] if isinstance(head, list) else head).num_classes
    batch = instances(classes)
    data = model.train().data_preprocessor(batch, training=True)
    check_learning(model, model(**data, mode='loss'))
    data = model.eval().data_preprocessor(batch, training=False)
    with torch.no_grad():
        results = model(**data, mode='predict')
    for sample in results:
        found = sample.pred_instances
        if 'rcnn' in name:
            assert len(found) == 5
        assert found.masks.shape == (len(found), SIZE, SIZE)
        assert found.scores.isfinite().all()
        assert (found.labels < classes).all()
    check_strides(model, cfg.model)
    check_optimizer(model, cfg.optim_wrapper)


@pytest.mark.parametrize(
    'name', [name for name in FILES if '_stock_deit_s_' in name]
)
def test_stock_parts_give_the_same_numbers(name):
    """What speed is measured against loads the same weights."""
    outputs, weights = [], None
    for each in (name, name.replace('stock', 'dense')):
        model = build(read(each)).eval().double()
        weights = weights or model.state_dict()
        model.load_state_dict(weights)
        torch.manual_seed(0)
        with torch.no_grad():
            x = torch.randn(1, 3, SIZE, 2 * SIZE).double()
            maps = [*model.extract_feat(x)]
            # others' heads ask for labels, or for boxes
            if name.startswith(('upernet', 'semfpn')):
                maps.append(model.decode_head(maps))
        outputs.append(maps)
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-10)


def test_every_kind_is_stepped():
    kinds = [kind_of(name) for name in FILES]
    assert min(map(kinds.count, ('classifier', 'detector', 'segmentor'))) > 15
    assert sum('_stock_' in name for name in FILES) == 4
