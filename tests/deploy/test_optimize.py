"""Optimised copies against the models that they were made of."""

import copy
from pathlib import Path

import pytest
import small_vits
import torch
from torch import nn

from mmvitcompress.deploy.folded_blocks import fold_scales, pad_widths
from mmvitcompress.deploy.optimize import optimize_for_inference
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedViT, UnmergePyramid

SMALL = small_vits.SMALL | dict(mlp_dims=(48, 96, 9, 24))
SLIMMING = dict(base_layer=2, layers=(2, 3))
MODELS = {
    'dense': {},
    'lvvit': dict(stem='conv', qkv_bias=False, skip_scale=2.0),
    'deit3': dict(layer_scale=True, pos_embed='patch'),
    'atme': dict(token_merging=dict(layers=(2, 3)), layer_scale=True),
    'slim': dict(patch_slimming=SLIMMING),
    'rotary': dict(rope={}, pos_embed='none', layer_scale=True),
    'gated': dict(rope={}, mlp='swiglu', v_dims=(10, 9, 8, 12)),
    'inner_norms': dict(mlp='swiglu', mlp_norm=True, attn_norm=True),
}
BOUNDS = {torch.float32: 1e-5, torch.float64: 1e-10}


def randomise(model, dtype):
    """All numbers random, statistics of batch norms included."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.to(dtype).eval()


def build(name, dtype=torch.float64, **kwargs):
    return randomise(CompressedViT({**SMALL, **MODELS[name]}, **kwargs), dtype)


def error(found, expected):
    gap = max((a - b).abs().max() for a, b in zip(found, expected))
    return gap / max(b.abs().max() for b in expected)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('dtype', BOUNDS)
@pytest.mark.parametrize('size', [(32, 32), (30, 37)])
def test_equals_the_model(name, dtype, size):
    model = build(name, dtype)
    x = torch.randn(2, 3, *size, dtype=dtype)
    fast = optimize_for_inference(model)
    assert error(fast(x), model(x)) <= BOUNDS[dtype]


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('step', [1, 8])
def test_padded_widths_change_nothing(name, step):
    model = build(name)
    x = torch.randn(2, 3, 32, 36, dtype=torch.float64)
    expected = model(x)
    for block in model.blocks:
        pad_widths(block, step)
        attn = block.attn
        if name != 'inner_norms':
            assert attn.qk_dim == attn.v_dim and attn.qk_dim % step == 0
            assert block.mlp.fc2.in_features % step == 0
        assert attn.qkv.out_features == sum(attn.split)
    assert error(model(x), expected) <= 1e-10


def test_scales_are_gone():
    model = randomise(
        CompressedViT({**SMALL, 'layer_scale': True, 'skip_scale': 2.0}),
        torch.float64,
    )
    block, x = model.blocks[1], torch.randn(2, 5, 24, dtype=torch.float64)
    expected = block(x)
    fold_scales(block)
    assert block.skip_scale == 1 and isinstance(block.ls2, nn.Identity)
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)


def test_the_model_stays_as_it_is():
    model = build('lvvit', token_merging=dict(layers=(2,)))
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(1, 3, 30, 37, dtype=torch.float64)
    expected = model(x)
    fast = optimize_for_inference(model)
    assert list(before) == list(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in fast.parameters())
    for a, b in zip(model(x), expected):
        assert torch.equal(a, b)
    shared = {p.data_ptr() for p in model.parameters()}
    assert not shared & {p.data_ptr() for p in fast.parameters()}


def test_life_prediction_costs_a_fraction():
    from mmvitcompress.analysis.macs import count_macs

    model = build('slim', final_norm=True, out_indices=[-1])
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    saved = (
        count_macs(model, x, convention='matmul').total
        - count_macs(
            optimize_for_inference(model), x, convention='matmul'
        ).total
    )
    # Q of 64 patches and P of 65 tokens; what is left is QᵀP of one
    assert saved == (64 + 65 - 1) * 24**2


def test_batch_norms_of_a_neck_are_folded():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = CompressedViT(
                {**SMALL, **MODELS['atme']}, restore=False
            )
            self.neck = UnmergePyramid(24, norm_cfg=dict(type='BN'))

        def forward(self, x):
            return self.neck(self.backbone(x))

    model = randomise(Net(), torch.float64)
    x = torch.randn(2, 3, 28, 36, dtype=torch.float64)
    fast = optimize_for_inference(model)
    assert not [m for m in fast.modules() if isinstance(m, nn.BatchNorm2d)]
    assert error(fast(x), model(x)) <= 1e-10


def test_compiles_and_is_copied():
    torch._dynamo.reset()
    model = build('slim')
    fast = copy.deepcopy(optimize_for_inference(model))
    run = torch.compile(fast, backend='aot_eager', fullgraph=True)
    x = torch.randn(2, 3, 36, 44, dtype=torch.float64)
    assert error(run(x), model(x)) <= 1e-10


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda m: m.train(), 'evaluation mode'),
        (lambda m: m.blocks[1].train(), 'evaluation mode'),
        (lambda m: nn.Linear(2, 2).eval(), 'Linear contains no ViT'),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ConfigError, match=message):
        optimize_for_inference(change(build('dense')))


def test_refuses_compactors():
    with pytest.raises(ConfigError, match='compactors'):
        optimize_for_inference(build('dense', compactors=True))


def test_windows_and_autocast():
    model = build('atme', torch.float32, window_size=3)
    fast = optimize_for_inference(model)
    x = torch.randn(2, 3, 36, 44)
    with torch.autocast('cpu', torch.bfloat16):
        found, expected = fast(x), model(x)
    assert all(y.dtype == torch.float32 for y in found)
    # roundings differ where scales were folded before
    assert error(found, expected) <= 2e-2


def test_whole_segmentor():
    """Stock parts of MMSegmentation: norms folded, convolutions faster."""
    from mmengine.config import Config
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS as REGISTRY
    from mmengine.registry import init_default_scope

    from mmvitcompress.models.fast.conv import FastConv2d

    root = Path(__file__).parents[2]
    cfg = Config.fromfile(root / 'configs/semfpn_stock_deit_s_ade20k.py')
    init_default_scope('mmseg')
    cfg.model.backbone.update(arch='deit_tiny', checkpoint=None)
    cfg.model.neck[0].embed_dim = 192
    cfg.model.neck[1].in_channels = [192] * 4
    model = revert_sync_batchnorm(REGISTRY.build(cfg.model)).eval()
    fast = optimize_for_inference(model)
    assert any(isinstance(module, FastConv2d) for module in fast.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    images = torch.randn(1, 3, 128, 160)
    assert error([fast(images)], [model(images)]) < 1e-5
