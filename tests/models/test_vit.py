"""The dense model against timm; properties of the compressed ones."""

import copy
import warnings
from types import SimpleNamespace

import pytest
import timm
import torch
from mmengine.hooks import EMAHook
from small_vits import SMALL

from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedSwin, CompressedViT, UnmergeUpsample

FAMILIES = {
    'deit_tiny_patch16_224': 'deit_tiny',
    'deit_small_patch16_224': 'deit_small',
    'deit_base_patch16_224': 'deit_base',
    'deit_small_distilled_patch16_224': 'deit_distilled_small',
    'vit_small_patch16_224.augreg_in21k': 'vit_small',
    'deit3_small_patch16_224': 'deit3_small',
    'vit_small_patch14_dinov2': 'dinov2_small',
    'vit_small_patch14_reg4_dinov2': 'dinov2_reg4_small',
}
METHODS = {
    'dense': {},
    'atme': dict(token_merging=dict(layers=(2, 3))),
    'atme-conv': dict(token_merging=dict(layers=(2,), conv=True)),
    'symmetric': dict(token_merging=dict(layers=(2,), directions='symmetric')),
    'diagonal': dict(token_merging=dict(layers=(2,), directions='diagonal')),
    'slim': dict(patch_slimming=dict(base_layer=2, layers=(2, 3))),
    'both': dict(
        token_merging=dict(layers=(2,)),
        patch_slimming=dict(base_layer=2, layers=(2, 3)),
    ),
}


def small(method='dense', **kwargs):
    torch.manual_seed(0)
    model = CompressedViT(SMALL, **METHODS[method], **kwargs)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def maps(model, x):
    with torch.no_grad():
        return model(x)


def peer_of(name, dtype):
    peer = timm.create_model(name, dynamic_img_size=True, dynamic_img_pad=True)
    # init leaves biases at 0 and scales at one value, which would hide slips
    for parameter in peer.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return peer.eval().to(dtype)


@pytest.mark.parametrize(
    'name, arch',
    [
        pytest.param(name, arch, marks=pytest.mark.slow)
        if 'tiny' not in arch
        else (name, arch)
        for name, arch in FAMILIES.items()
    ],
)
def test_dense_equals_timm(name, arch, tmp_path):
    for dtype, bound in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
        peer = peer_of(name, dtype)
        path = tmp_path / 'timm.pth'
        torch.save(peer.state_dict(), path)
        model = CompressedViT(arch, checkpoint=str(path)).eval().to(dtype)
        for size in ((224, 224), (512, 683)):
            x = torch.randn(1, 3, *size, dtype=dtype)
            with torch.no_grad():
                expected = peer.forward_intermediates(
                    x, [2, 5, 8, 11], intermediates_only=True
                )
            for ours, theirs in zip(maps(model, x), expected):
                error = (ours - theirs).abs().max() / theirs.abs().max()
                assert ours.shape == theirs.shape
                assert error <= bound


def test_final_norm_equals_timm(tmp_path):
    peer = peer_of('deit_tiny_patch16_224', torch.float32)
    path = tmp_path / 'timm.pth'
    torch.save(peer.state_dict(), path)
    model = CompressedViT(
        'deit_tiny',
        checkpoint=str(path),
        final_norm=True,
        out_type='raw',
        out_indices=[-1],
    ).eval()
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = peer.forward_features(x)
    torch.testing.assert_close(maps(model, x)[0], expected)


def test_unequal_widths_by_hand():
    """Softmax attention with the scale of the unpruned head width."""
    attention = small().blocks[1].attn
    x = torch.randn(2, 5, 24)
    q, k, v = attention.qkv(x).split([12, 12, 18], 2)
    heads = []
    for a in range(3):
        q_a, k_a = q[..., 4 * a : 4 * a + 4], k[..., 4 * a : 4 * a + 4]
        weights = (q_a @ k_a.transpose(1, 2) / 8**0.5).softmax(-1)
        heads.append(weights @ v[..., 6 * a : 6 * a + 6])
    expected = attention.proj(torch.cat(heads, 2))
    torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(method, dtype):
    model = small(method)
    x = torch.randn(2, 3, 36, 44)
    exact = maps(model, x)
    with torch.autocast('cpu', dtype):
        rough = maps(model, x)
    # slimming may drop another patch where two scores are nearly equal
    mostly = 0.9 if 'slim' in method or method == 'both' else 1.0
    for a, b in zip(rough, exact):
        close = (a.float() - b).abs() < 0.1 * b.abs().max()
        assert close.float().mean() >= mostly


@pytest.mark.parametrize('method', METHODS)
def test_copies_and_state_dicts_give_the_same(method):
    model = small(method)
    x = torch.randn(1, 3, 36, 44)
    expected = maps(model, x)
    clone = copy.deepcopy(model)
    fresh = CompressedViT(SMALL, **METHODS[method]).eval()
    fresh.load_state_dict(model.state_dict())
    for other in (clone, fresh):
        for a, b in zip(maps(other, x), expected):
            assert torch.equal(a, b)


def position_by_hand(model, grid):
    """timm's own, from what the parameter holds now."""
    return timm.layers.resample_abs_pos_embed(
        model.pos_embed.detach().clone(),
        new_size=list(grid),
        old_size=[8, 8],
        num_prefix_tokens=1,
    )


def step_fused(model):
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    model(torch.randn(2, 3, 32, 32))[-1].square().sum().backward()
    optimizer.step()
    model.eval()


def swap_by_ema(model):
    hook = EMAHook()
    hook.before_run(SimpleNamespace(model=model))
    for average in hook.ema_model.module.parameters():
        average.mul_(2)
    hook.before_val_epoch(None)


def write_through_data(model):
    model.pos_embed.data.mul_(3)


@pytest.mark.parametrize(
    'change', [step_fused, swap_by_ema, write_through_data]
)
def test_position_follows_the_embedding(change):
    """Also where its version doesn't tell that it has changed."""
    model = small()
    x = torch.randn(1, 3, 36, 44)
    before = maps(model, x)[0]
    assert torch.equal(maps(model, x)[0], before)
    with torch.inference_mode():
        assert torch.equal(model(x)[0], before)
    change(model)
    assert not torch.allclose(maps(model, x)[0], before, rtol=0.05)
    with torch.no_grad():
        tokens, _ = model.embed(x)
        expected = position_by_hand(model, (9, 11))
        model.pos_embed.data.zero_()
        bare, _ = model.embed(x)
    torch.testing.assert_close(tokens - bare, expected)


def test_forward_writes_nothing_on_modules():
    def seen(module):
        return {
            key: dict(value) if isinstance(value, dict) else value
            for key, value in vars(module).items()
        }

    model = small('both')
    before = {name: seen(module) for name, module in model.named_modules()}
    maps(model, torch.randn(1, 3, 36, 44))
    for name, module in model.named_modules():
        assert seen(module) == before[name], name


def test_slimming_equals_running_survivors_only():
    """Patches that have left take no part in later attention."""
    model = small('slim')
    x = torch.randn(1, 3, 32, 32)
    model.restore = False
    with torch.no_grad():
        last = model(x)[-1]
        tokens, _ = model.embed(x)
        tokens = model.blocks[1](model.blocks[0](tokens))
        kept = state_order(model, tokens)
        survivors = tokens[:, [0, *(1 + kept[:45])]]  # ⌈0.7·64⌉
        survivors = model.blocks[2](survivors)
        survivors = survivors[:, : 1 + 32]  # ⌈0.7·45⌉
        survivors = model.blocks[3](survivors)
    torch.testing.assert_close(last.tokens, survivors[:, 1:])


def state_order(model, tokens):
    scores = model.patch_slimming.predictor(tokens, 1)[0]
    return sorted(range(64), key=lambda i: -scores[i].item()) and (
        scores.argsort(descending=True).numpy()
    )


def test_frozen_stages():
    model = small('atme', frozen_stages=2).train()
    for name, parameter in model.named_parameters():
        layer = model.get_layer_depth(name)[0]
        assert parameter.requires_grad == (layer > 2), name
    assert not model.blocks[1].training and model.blocks[2].training
    thawed = small('atme').train()
    assert all(p.requires_grad for p in thawed.parameters())


def test_layer_depths():
    model = small('both', final_norm=True)
    depth = {
        n: model.get_layer_depth(n)[0] for n, _ in model.named_parameters()
    }
    assert depth['patch_embed.proj.weight'] == depth['pos_embed'] == 0
    assert depth['blocks.0.attn.qkv.weight'] == 1
    assert depth['token_merging.1.fuse.weight'] == 2
    assert depth['blocks.3.mlp.fc1.bias'] == 4
    assert depth['norm.weight'] == 5
    assert model.get_layer_depth('backbone.norm.bias', 'backbone.') == (5, 6)
    assert model.get_layer_depth('decode_head.x', 'backbone.') == (5, 6)


def test_unused_blocks_are_not_built():
    model = CompressedViT('deit_tiny', out_indices=[2, 5])
    assert len(model.blocks) == 6 and model.norm is None
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert len(model(torch.randn(1, 3, 64, 64))) == 2


def test_drop_path_rates_rise_to_the_last_block():
    model = CompressedViT('deit_tiny', drop_path_rate=0.11)
    rates = [getattr(b.drop_path, 'drop_prob', 0) for b in model.blocks]
    assert rates == pytest.approx([0.01 * i for i in range(12)])


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(arch=None), 'arch is needed'),
        (dict(out_indices=[3, 12]), r'0..11 .* but got 12'),
        (dict(out_indices=[-13]), 'but got -13'),
        (dict(out_indices=[3, 3]), 'only once'),
        (dict(out_indices=[]), 'at least one'),
        (dict(frozen_stages=13), r'-1..12, but got 13'),
        (dict(drop_path_rate=1.0), 'but got 1.0'),
        (dict(out_type='map'), "got 'map'"),
        (dict(init_cfg=dict(type='Pretrained')), 'use backbone.checkpoint'),
        (dict(token_merging=dict(layers=(13,))), 'but got 13'),
        (dict(arch=None, token_merging=dict(layers=(3,))), 'needs an arch'),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        CompressedViT(**{'arch': 'deit_tiny', **kwargs})


def test_image_smaller_than_a_patch():
    model = CompressedViT('deit_tiny', out_indices=[0])
    with pytest.raises(ConfigError, match='but got 12×40'):
        model(torch.randn(1, 3, 12, 40))


def test_neck_refuses_what_is_restored():
    with pytest.raises(ConfigError, match='restore=False'):
        UnmergeUpsample()(small()(torch.randn(1, 3, 32, 32)))
    with pytest.raises(ConfigError, match="got 'cubic'"):
        UnmergeUpsample('cubic')
    with pytest.raises(ConfigError, match='needs in_channels'):
        UnmergeUpsample(fill='mask_token')


def test_mask_token_neck():
    model = small('slim', restore=False)
    neck = UnmergeUpsample(fill='mask_token', in_channels=[24] * 4)
    for token in neck.mask_tokens:
        torch.nn.init.constant_(token, 7.0)
    restored = neck(maps(model, torch.randn(1, 3, 32, 32)))
    holes = [int((level == 7).all(1).sum()) for level in restored]
    # outputs come before the patches of their own block leave
    assert holes == [0, 0, 64 - 45, 64 - 32]


@pytest.mark.parametrize(
    'net, arch', [(CompressedViT, 'deit_tiny'), (CompressedSwin, 'swin_tiny')]
)
def test_nets_larger_than_the_memory_are_refused(net, arch, monkeypatch):
    monkeypatch.setattr('os.sysconf', lambda name: 1 << 11)  # 4 MiB in all
    with pytest.raises(ConfigError, match=r'GB are more than .* embed_dim='):
        net(arch)
