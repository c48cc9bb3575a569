"""Counting whole models: against fvcore, the paper, and by part."""

import copy
import warnings

import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis
from timm.layers import set_fused_attn
from torch import nn

from mmvitcompress.analysis.inference import evaluating
from mmvitcompress.analysis.macs import count_macs, count_params
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedViT


def fvcore_macs(model, *inputs):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        analysis = FlopCountAnalysis(model.eval(), inputs)
        analysis.unsupported_ops_warnings(False)
        analysis.uncalled_modules_warnings(False)
        return int(analysis.total())


@pytest.fixture(params=[False, True], ids=['unfused', 'fused'])
def fused_attention(request):
    """timm with and without fused attention, its Swin included."""
    set_fused_attn(request.param, experimental=request.param)
    yield request.param
    set_fused_attn(True)


@pytest.fixture
def unfused():
    set_fused_attn(False)
    yield
    set_fused_attn(True)


@pytest.mark.parametrize(
    ('name', 'size', 'expected'),
    [
        ('deit_tiny_patch16_224', 224, 1_258_411_200),
        ('deit_small_patch16_224', 224, 4_608_338_304),
        ('deit_base_patch16_224', 224, 17_582_740_224),
        ('deit_small_patch16_224', 512, 31_798_255_488),
    ],
)
def test_deit_costs_what_the_closed_form_says(
    name, size, expected, fused_attention
):
    kwargs = {} if size == 224 else dict(img_size=size, num_classes=0)
    with torch.device('meta'):  # shapes are all that matters
        model = timm.create_model(name, **kwargs)
        count = count_macs(model, torch.empty(1, 3, size, size))
    assert count.total == expected
    assert count.uncounted == {}
    kernel = 'scaled_dot_product_attention'
    assert (kernel in count.operators) == fused_attention


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'resnet50',
        'deit_tiny_patch16_224',
        'swin_tiny_patch4_window7_224',
        'convnext_atto',
        'mobilenetv3_small_100',
        'pvt_v2_b0',
    ],
)
def test_agrees_with_fvcore_to_the_digit(name, unfused):
    model = timm.create_model(name)
    image = torch.rand(1, 3, 224, 224)
    assert count_macs(model, image).total == fvcore_macs(model, image)


def test_fused_swin_counts_as_the_unfused_one(fused_attention):
    with torch.device('meta'):
        model = timm.create_model('swin_tiny_patch4_window7_224')
        count = count_macs(model, torch.empty(1, 3, 224, 224))
    assert count.total == 4_509_194_496
    assert ('bmm' in count.operators) != fused_attention


def test_merged_backbone_costs_what_the_closed_form_says():
    backbone = CompressedViT(
        'deit_small',
        img_size=512,
        token_merging=dict(layers=(5, 8)),
        out_indices=[11],
        out_type='raw',
        final_norm=True,
    )
    count = count_macs(backbone, torch.rand(1, 3, 512, 512))
    assert count.total == 16_894_877_568
    assert count.uncounted == {}


@pytest.mark.parametrize('layers', [(2, 4), (4,), (2, 3)])
@pytest.mark.parametrize('out', [1, 2, 3])
def test_slimmed_backbone_costs_what_the_closed_form_says(layers, out):
    """Also where patches leave after the last block that runs."""
    backbone = CompressedViT(
        dict(embed_dim=24, depth=4, num_heads=3, patch_size=4, img_size=32),
        patch_slimming=dict(base_layer=2, layers=layers),
        out_indices=[out],
        out_type='raw',
        final_norm=True,
    )
    for convention in ('fvcore', 'matmul'):
        count = count_macs(
            backbone, torch.rand(1, 3, 36, 28), convention=convention
        )
        assert count.total == backbone.arch.macs(
            (36, 28), depth=out + 1, convention=convention
        )


class Toy(nn.Module):
    """Two parts that are called, a head that is not, and a data-dependent
    branch."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.neck = nn.Linear(4, 8)
        self.head = nn.Linear(8, 2)
        self.unused = nn.Linear(4, 100)

    def forward(self, x):
        x = self.backbone(self.backbone(x))  # twice: 2 * (16 + 20) * N
        x = self.neck(x)  # 32 * N
        if x.sum() > float('inf'):
            x = self.unused(x)
        return self.head.forward(x)  # 16 * N, by no call of the module


def toy_parts(model):
    return {'backbone': model.backbone, 'neck': [model.neck]}


@pytest.mark.parametrize('batch', [1, 3])
def test_parts_add_up_to_the_total(batch):
    model = Toy()
    count = count_macs(
        model, torch.rand(batch, 4), parts=toy_parts(model), rest='head'
    )
    assert count.parts == {
        'backbone': batch * 72,
        'neck': batch * 32,
        'head': batch * 16,
    }
    assert count.total == batch * 120
    assert count.operators == {'linear': batch * 80, 'layer_norm': batch * 40}


def test_inner_part_takes_from_the_outer_one():
    model = Toy()
    parts = {'backbone': model.backbone, 'norm': model.backbone[1]}
    count = count_macs(model, torch.rand(1, 4), parts=parts)
    assert count.parts == {'backbone': 32, 'norm': 40, 'other': 48}


def test_a_missing_part_counts_nothing():
    model = Toy()
    parts = {'backbone': None, 'neck': []}
    count = count_macs(model, torch.rand(1, 4), parts=parts)
    assert count.parts == {'backbone': 0, 'neck': 0, 'other': 120}


@pytest.mark.parametrize(
    'context',
    [torch.enable_grad, torch.no_grad, torch.inference_mode],
    ids=['grad', 'no_grad', 'inference_mode'],
)
def test_context_makes_no_difference(context):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    image = torch.rand(1, 3, 6, 6)
    conv, norm = 16 * 4 * 27, 2 * 64
    expected = conv + norm + 64 + 8

    def inside(x):
        with context():
            return model(x)

    with evaluating(model):
        assert count_macs(inside, image).total == expected
    with context():
        assert count_macs(model, image).total == expected


def test_everything_is_put_back():
    model = Toy()
    model.backbone[1].eval()  # a frozen layer of a model in training
    before = copy.deepcopy(model)
    image = torch.rand(2, 4, requires_grad=True)
    count_macs(model, image, parts=toy_parts(model))
    modes = [module.training for module in model.modules()]
    assert modes == [module.training for module in before.modules()]
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    for ours, theirs in zip(model.parameters(), before.parameters()):
        assert torch.equal(ours, theirs)
    model(image).sum().backward()  # trains on as if nothing had been
    assert image.grad is not None


def test_everything_is_put_back_after_a_failure():
    model = Toy()
    with pytest.raises(RuntimeError):
        count_macs(model, torch.rand(2, 5), parts=toy_parts(model))
    assert model.training
    assert not model.backbone._forward_hooks
    # no mode lingers, and the model still works
    assert count_macs(model, torch.rand(1, 4)).total == 120


def test_cached_tensors_can_still_be_trained_with():
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(4))
            self.cache = None

        def forward(self, x):
            if self.cache is None:
                self.cache = torch.arange(4.0)
            return (x * self.weight * self.cache).sum()

    model = Caching()
    count_macs(model, torch.rand(4))
    model(torch.rand(4)).backward()
    assert model.weight.grad is not None


@torch.library.custom_op('mmvitcompress_test::mystery', mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x @ x


def test_unknown_operators_are_listed():
    def function(x):
        return torch.linalg.inv(mystery(x)), torch.fft.fft(x)

    count = count_macs(function, torch.eye(3))
    assert count.uncounted['mmvitcompress_test::mystery'] == 1
    assert count.uncounted['aten::_fft_r2c'] == 1
    assert count.uncounted['aten::linalg_inv_ex'] == 1


def test_gradient_checkpointing_counts_once():
    layer = nn.Linear(4, 4)

    def function(x):
        return torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)

    assert count_macs(function, torch.rand(2, 4)).total == 32


def test_unknown_convention_is_refused():
    with pytest.raises(ConfigError, match="fvcore, matmul, but got 'flops'"):
        count_macs(nn.Linear(1, 1), torch.rand(1), convention='flops')


def test_parameters_by_part():
    model = Toy()
    params = count_params(
        model, toy_parts(model), rest='head', exclude=[model.unused]
    )
    backbone = 4 * 4 + 4 + 2 * 4
    assert params == {'backbone': backbone, 'neck': 40, 'head': 18}


def test_shared_parameters_count_once():
    model = Toy()
    model.neck.weight = model.unused.weight = model.backbone[0].weight
    params = count_params(model, toy_parts(model), exclude=[model.unused])
    # the neck keeps its bias only
    assert params == {'backbone': 28, 'neck': 8, 'other': 18}


def test_buffers_are_no_parameters():
    model = nn.BatchNorm2d(3)
    assert count_params(model) == {'other': 6}


def test_convolutions_cost_the_same_whichever_way_they_run():
    from mmvitcompress.models.fast.conv import FastConv2d

    conv = FastConv2d(192, 192, 3, padding=1)
    image = torch.randn(1, 192, 32, 32)
    with torch.no_grad():  # the case in which it takes another way
        direct = torch.nn.functional.conv2d(
            image, conv.weight, conv.bias, 1, 1
        )
        assert not torch.equal(conv(image), direct)
    count = count_macs(conv, image)
    assert count.total == 192 * 192 * 9 * 32 * 32
    assert count.uncounted == {}
