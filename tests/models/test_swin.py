"""The dense Swin against timm's and MMSegmentation's; what all Swins keep."""

import pytest
import timm
import torch
import torch.nn.functional as F
from swins import (
    SHAPE,
    assert_close,
    randomised,
    run,
    saved,
    small,
    timm_swin,
)

from mmvitcompress.analysis.macs import count_macs, count_params
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedSwin, ImageClassifier


@pytest.mark.parametrize('size', [(224, 224), (252, 388), (228, 260)])
def test_dense_equals_timm(size, tmp_path):
    """Also where windows of 7 divide no grid, and grids are odd."""
    peer = timm_swin(size)
    path = saved(peer, tmp_path / 'timm.pth')
    model = CompressedSwin(SHAPE, checkpoint=path, out_norms=False).eval()
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        peer, model = peer.to(dtype), model.to(dtype)
        x = torch.randn(2, 3, *size, dtype=dtype)
        expected = peer.forward_intermediates(x, intermediates_only=True)
        for ours, theirs in zip(run(model, x), expected):
            assert_close(ours, theirs, bound)


def test_swin_tiny_equals_timm(tmp_path):
    name = 'swin_tiny_patch4_window7_224'
    peer = randomised(timm.create_model(name), 0.05)
    backbone = dict(
        type='mmvitcompress.CompressedSwin',
        arch='swin_tiny',
        checkpoint=saved(peer, tmp_path / 'timm.pth'),
    )
    model = ImageClassifier(backbone).eval()
    assert model.has_weights
    x = torch.randn(1, 3, 224, 224)
    assert_close(run(model, x), run(peer, x), 1e-5)


def test_images_are_padded_to_patches(tmp_path):
    peer = timm_swin((224, 232))
    path = saved(peer, tmp_path / 'timm.pth')
    model = CompressedSwin(SHAPE, checkpoint=path, final_norm=True).eval()
    x = torch.randn(1, 3, 221, 230)
    expected = peer.forward_features(F.pad(x, (0, 2, 0, 3)))
    assert_close(run(model, x)[-1], expected.permute(0, 3, 1, 2), 1e-5)


def test_shrunk_windows_equal_timm():
    """timm's table of a smaller window: the middle of ours."""
    size = (96, 160)  # 6×10 tokens in stage 3, 3×5 in stage 4
    peer = timm_swin(size).double()
    model = randomised(CompressedSwin(SHAPE, out_norms=False)).double()
    state_dict = model.state_dict()
    for key, value in peer.state_dict().items():
        if key.endswith('bias_table') and len(value) < 169:
            table = state_dict[key].unflatten(0, (13, 13))
            h, w = peer.get_submodule(key.rpartition('.')[0]).window_size
            table = table[7 - h : 6 + h, 7 - w : 6 + w]
            state_dict[key] = table.flatten(0, 1)
        if key not in state_dict:
            state_dict[key] = value  # head and norm
    peer.load_state_dict(state_dict)
    x = torch.randn(2, 3, *size).double()
    expected = peer.forward_intermediates(x, intermediates_only=True)
    for ours, theirs in zip(run(model, x), expected):
        assert_close(ours, theirs, 1e-12)


def test_padding_first_equals_mmseg(tmp_path):
    from mmseg.models.backbones import SwinTransformer as MMSegSwin

    peer = MMSegSwin(embed_dims=8, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8))
    randomised(peer)  # its eval() returns None
    arch = dict(SHAPE, pad_first=True)
    path = saved(peer, tmp_path / 'mmseg.pth')
    model = CompressedSwin(arch, checkpoint=path).eval()
    x = torch.randn(2, 3, 230, 311)
    for ours, theirs in zip(run(model, x), run(peer, x)):
        assert_close(ours, theirs, 1e-5)


def test_unequal_widths_by_hand():
    """One window of 3×2 tokens; the scale is that of 8 channels to a head."""
    model = small()
    attention = model.layers[2].blocks[0].attn  # 4 heads: Q/K 2, V 6
    windows = model.arch.windows((3, 2), False)
    layout = model._layouts.get(windows, torch.device('cpu'))
    x = torch.randn(2, 6, 32)
    q, k, v = attention.qkv(x).split([8, 8, 24], 2)
    table = attention.relative_position_bias_table.view(7, 7, 4)
    bias = torch.empty(6, 6, 4)
    for i in range(6):
        for j in range(6):
            down, right = i // 2 - j // 2, i % 2 - j % 2
            bias[i, j] = table[down + 3, right + 3]
    heads = []
    for a in range(4):
        q_a, k_a = q[..., 2 * a : 2 * a + 2], k[..., 2 * a : 2 * a + 2]
        logits = q_a @ k_a.transpose(1, 2) / 8**0.5 + bias[..., a]
        heads.append(logits.softmax(-1) @ v[..., 6 * a : 6 * a + 6])
    expected = attention.proj(torch.cat(heads, 2))
    torch.testing.assert_close(attention(x, layout), expected)


def test_fewer_stages_cost_less():
    model = small('atme', out_indices=(1, 2), out_norms=False, restore=False)
    assert model.out_channels == (16, 32)
    arch, some = model.arch, dict(stages=3, final_norm=False)
    count = count_macs(model, torch.randn(1, 3, 64, 48))
    assert count.total == arch.macs((64, 48), **some)
    assert sum(count_params(model).values()) == arch.params(**some)


def test_export_records_one_graph():
    """Nothing depends on the data or is kept between calls."""
    model = small('atme')
    x = torch.randn(2, 3, 61, 106)
    program = torch.export.export(model, (x,))
    for ours, theirs in zip(program.module()(x), run(model, x)):
        assert_close(ours, theirs, 1e-5)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(arch=None), 'arch is needed'),
        (dict(arch='deit_tiny'), 'family swin'),
        (dict(arch=None, token_merging=dict(layers=(1,))), 'needs an arch'),
        (dict(patch_slimming=dict(layers=(5,))), 'windows of a Swin'),
        (dict(init_cfg=dict(type='Pretrained')), 'use backbone.checkpoint'),
        (dict(out_type='cls'), "got 'cls'"),
        (dict(out_indices=(0, 4)), r'0\.\.3 .*got 4'),
        (dict(out_indices=(3, -1)), 'only once'),
        (dict(final_norm=True, out_norms=True), 'set one of them to False'),
        (dict(frozen_stages=5), r'-1\.\.4, but got 5'),
        (dict(drop_path_rate=1.0), r'\[0, 1\)'),
        (dict(token_merging=dict(layers=(5,))), 'blocks of stage 3'),
    ],
)
def test_errors_name_the_value(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        CompressedSwin(**{'arch': SHAPE, **kwargs})
