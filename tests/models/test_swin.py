"""The dense Swin against timm's and MMSegmentation's; compression."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from timm.models.swin_transformer import SwinTransformer

from mmvitcompress.analysis.macs import count_macs, count_params
from mmvitcompress.channels import attach_compactors, find_compactors, fold
from mmvitcompress.checkpoint import write_checkpoint
from mmvitcompress.conversion import convert
from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.models import (
    CompressedSwin,
    ImageClassifier,
    UnmergeUpsample,
)
from mmvitcompress.models.swin import halved
from mmvitcompress.registry import MODELS
from mmvitcompress.tokens import TokenMap, TokenMerge, TokenState, restore
from mmvitcompress.training.export import export

SHAPE = dict(embed_dim=8, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8))
SMALL = dict(
    SHAPE,
    window_size=4,
    img_size=64,
    qk_dims=(8, 4, 6, 8, 2, 4, 8, 6, 8, 4),
    v_dims=(4, 8, 8, 2, 6, 8, 4, 8, 2, 8),
    mlp_dims=(32, 16, 64, 24, 40, 128, 64, 96, 256, 128),
)
MERGES = {
    'dense': None,
    'atme': dict(layers=(2, 3)),
    'vertical': dict(layers=(1,), directions='vertical'),
    'atme-conv': dict(layers=(3, 4), conv=True),
    'symmetric': dict(layers=(2,), directions='symmetric'),
    'diagonal': dict(layers=(2,), directions='diagonal'),
}
SIZES = [(64, 64), (61, 106), (33, 50), (4, 7), (130, 36)]


def randomised(model, std=0.2):
    # init leaves biases at 0 and scales at one value, which would hide slips
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def small(method='dense', arch=SMALL, **kwargs):
    torch.manual_seed(0)
    merging = MERGES[method]
    return randomised(CompressedSwin(arch, token_merging=merging, **kwargs))


def run(model, x):
    with torch.no_grad():
        return model(x)


def timm_swin(size, **kwargs):
    torch.manual_seed(0)
    return randomised(SwinTransformer(size, **{**SHAPE, **kwargs}))


def saved(peer, path):
    torch.save(peer.state_dict(), path)
    return str(path)


def assert_close(ours, theirs, bound):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= bound * theirs.abs().max()


# -- the dense model --------------------------------------------------------


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


@pytest.mark.parametrize('method', MERGES)
@pytest.mark.parametrize('size', SIZES)
def test_costs_are_those_of_the_arch(method, size):
    model = small(method, final_norm=True, out_type='raw')
    x = torch.randn(1, 3, *size)
    for convention in ('fvcore', 'matmul'):
        count = count_macs(model, x, convention=convention)
        assert not count.uncounted
        assert count.total == model.arch.macs(size, convention=convention)
    assert sum(count_params(model).values()) == model.arch.params()


def test_fewer_stages_cost_less():
    model = small('atme', out_indices=(1, 2), out_norms=False, restore=False)
    assert model.out_channels == (16, 32)
    arch, some = model.arch, dict(stages=3, final_norm=False)
    count = count_macs(model, torch.randn(1, 3, 64, 48))
    assert count.total == arch.macs((64, 48), **some)
    assert sum(count_params(model).values()) == arch.params(**some)


# -- merging ----------------------------------------------------------------


@pytest.mark.parametrize('method', MERGES)
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('mode', ['nearest', 'bilinear'])
def test_backbone_and_neck_restore_alike(method, size, mode):
    model = small(method, restore_mode=mode)
    x = torch.randn(2, 3, *size)
    full = run(model, x)
    model.restore = False
    reduced = run(model, x)
    assert all(isinstance(level, TokenMap) for level in reduced)
    grid = [-(-side // 4) for side in size]
    for i, (ours, theirs) in enumerate(
        zip(UnmergeUpsample(mode)(reduced), full)
    ):
        assert torch.equal(ours, theirs)
        assert ours.shape == (2, 8 * 2**i, *grid)
        grid = [-(-side // 2) for side in grid]


@pytest.mark.parametrize('size', [(128, 192), (108, 141)])
def test_merges_start_as_average_pooling(size):
    """Even and odd grids, non-square; nothing else happens in between."""
    model = CompressedSwin(SHAPE, token_merging=dict(layers=(2, 4))).eval()
    seen = {}
    for index, block in enumerate(model.layers[2].blocks):
        block.register_forward_hook(
            lambda _, args, out, index=index: seen.update(
                {index: (args[0], out)}
            )
        )
    run(model, torch.randn(1, 3, *size))
    for index, kernel in ((1, (1, 2)), (3, (2, 1))):
        before = seen[index - 1][1].permute(0, 3, 1, 2)
        # a last row or column without a partner stays as it is
        expected = F.avg_pool2d(before, kernel, kernel, ceil_mode=True)
        merged = seen[index][0].permute(0, 3, 1, 2)
        torch.testing.assert_close(merged, expected)
    torch.testing.assert_close(seen[2][0], seen[1][1])


def test_nearest_hands_tokens_back_to_their_places():
    model = small('atme', restore=False, out_norms=False)
    x = torch.randn(1, 3, 100, 84)
    for level, full in zip(run(model, x)[2:], ((7, 6), (4, 3))):
        h, w = level.state.grid
        assert (h, w) == (-(-full[0] // 2), -(-full[1] // 2))
        restored = restore(*level)
        for i in range(full[0]):
            for j in range(full[1]):
                token = level.tokens[0, (i // 2) * w + j // 2]
                assert torch.equal(restored[0, :, i, j], token)


@pytest.mark.parametrize(
    'direction, rows, columns',
    [
        ('horizontal', 2, 4),
        ('vertical', 4, 2),
        ('symmetric', 4, 4),
        ('diagonal', 4, 2),
    ],
)
def test_stage_four_is_restored_where_it_came_from(direction, rows, columns):
    """Tokens that carry their coordinates, through merge and 2×2 merging."""
    height, width = 8, 12
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing='ij')
    tokens = torch.stack([y, x], -1).flatten(0, 1)[None]
    merge = TokenMerge(2, direction)
    tokens, state = merge(tokens, TokenState.start((height, width)), 0)
    grid = tokens.unflatten(1, state.grid).permute(0, 3, 1, 2)
    tokens = F.avg_pool2d(grid, 2).flatten(2).transpose(1, 2)
    found = restore(tokens, halved(state))[0]  # (2, 4, 6)
    y, x = y[::2, ::2], x[::2, ::2]  # upper left of each 2×2 patch
    centre_y = y // rows * rows + (rows - 1) / 2
    centre_x = x // columns * columns + (columns - 1) / 2
    torch.testing.assert_close(found, torch.stack([centre_y, centre_x]))


@pytest.mark.parametrize('method', MERGES)
def test_images_do_not_influence_each_other(method):
    model = small(method)
    x = torch.randn(3, 3, 84, 100)
    together = run(model, x)
    for i in range(3):
        for a, b in zip(run(model, x[i : i + 1]), together):
            torch.testing.assert_close(a[0], b[i], rtol=1e-4, atol=1e-5)


# -- training ---------------------------------------------------------------


@pytest.mark.parametrize('method', MERGES)
@pytest.mark.parametrize('compactors', [False, True])
def test_gradients_reach_every_parameter(method, compactors):
    model = small(method, compactors=compactors).train()
    outputs = model(torch.randn(2, 3, 64, 80))
    sum(out.square().mean() for out in outputs).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_recomputing_changes_nothing():
    plain = small('atme').train()
    again = copy.deepcopy(plain)
    again.with_cp = True
    x = torch.randn(1, 3, 64, 64)
    for model in (plain, again):
        sum(out.square().mean() for out in model(x)).backward()
    for a, b in zip(plain.parameters(), again.parameters()):
        torch.testing.assert_close(a.grad, b.grad)


def test_training_after_inference_mode():
    model = small('atme')
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        model(x)
    model.train()(x)[-1].sum().backward()
    assert not [key for key in model.state_dict() if 'layout' in key]


def test_autocast():
    model = small('atme')
    x = torch.randn(1, 3, 64, 64)
    full = run(model, x)
    with torch.autocast('cpu', torch.bfloat16):
        half = run(model, x)
    for a, b in zip(half, full):
        assert_close(a.float(), b, 0.1)


def test_export_records_one_graph():
    """Nothing depends on the data or is kept between calls."""
    model = small('atme')
    x = torch.randn(2, 3, 61, 106)
    program = torch.export.export(model, (x,))
    for ours, theirs in zip(program.module()(x), run(model, x)):
        assert_close(ours, theirs, 1e-5)


@pytest.mark.parametrize('stages', [-1, 0, 2, 3])
def test_frozen_stages(stages):
    model = small('atme', frozen_stages=stages, drop_path_rate=0.5).train()
    frozen = {
        name.split('.')[0] + '.' + name.split('.')[1]
        if name.startswith('layers')
        else name.split('.')[0]
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
    }
    expected = {f'layers.{i}' for i in range(stages)}
    expected |= {f'norm{i}' for i in range(stages)}
    expected |= {'patch_embed'} if stages >= 0 else set()
    expected |= {'token_merging'} if stages == 3 else set()
    assert frozen == expected
    for i, stage in enumerate(model.layers):
        assert stage.blocks[1].drop_path.training == (i >= stages)


def test_layer_depths():
    model = small('atme')
    depths = {
        name: model.get_layer_depth(f'backbone.{name}', 'backbone.')
        for name, _ in model.named_parameters()
    }
    assert {total for _, total in depths.values()} == {12}
    assert depths['patch_embed.norm.bias'][0] == 0
    assert depths['layers.0.blocks.1.norm1.bias'][0] == 2
    assert depths['layers.2.downsample.norm.bias'][0] == 5
    assert depths['token_merging.1.fuse.weight'][0] == 6
    assert depths['layers.2.blocks.1.norm1.bias'][0] == 6
    assert depths['norm0.weight'][0] == 11
    assert model.get_layer_depth('head.fc.bias', 'backbone.') == (11, 12)


@pytest.mark.parametrize('method', ['dense', 'atme'])
def test_upernet(method):
    from mmseg.structures import SegDataSample

    init_default_scope('mmseg')
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)),
        backbone=dict(
            type='mmvitcompress.CompressedSwin',
            arch=SMALL,
            token_merging=MERGES[method],
            restore=False,
        ),
        neck=dict(type='mmvitcompress.UnmergeUpsample'),
        decode_head=dict(
            type='UPerHead',
            in_channels=[8, 16, 32, 64],
            in_index=[0, 1, 2, 3],
            channels=16,
            num_classes=3,
            norm_cfg=dict(type='BN'),
            loss_decode=dict(type='CrossEntropyLoss'),
        ),
        test_cfg=dict(mode='whole'),
    )
    model = MODELS.build(ConfigDict(model)).train()
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, 64, 64))),
        metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)),
    )
    x = torch.randn(2, 3, 64, 64)
    losses = model.loss(x, [sample, sample])
    losses['decode.loss_ce'].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    predicted = model.eval().predict(x, [sample, sample])[0]
    assert predicted.pred_sem_seg.shape == (64, 64)


# -- channels ---------------------------------------------------------------


@pytest.mark.parametrize('method', ['dense', 'atme'])
def test_folding(method, tmp_path):
    """Masked columns at zero, folded away, and loaded from a file."""
    model = small(method, arch=SHAPE).double()
    x = torch.randn(2, 3, 100, 132).double()
    plain = run(model, x)
    compactors = attach_compactors(model)
    for ours, theirs in zip(run(model, x), plain):
        assert_close(ours, theirs, 1e-12)
    generator = torch.Generator().manual_seed(1)
    for block in compactors:
        for kind, compactor in block._asdict().items():
            torch.nn.init.normal_(compactor.weight, generator=generator)
            width = compactor.kept.shape[1]
            gone = torch.arange(width) % 4 == (1 if kind in 'qk' else 2)
            compactor.kept &= ~gone
            compactor.weight.data[:, gone] = 0
    expected = run(model, x)
    arch, state_dict = fold(model)
    assert arch.qk_dims == (6,) * 10
    assert arch.mlp_dims[-1] == 192
    path = tmp_path / 'folded.pth'
    write_checkpoint(path, state_dict, arch)
    folded = CompressedSwin(checkpoint=str(path)).double().eval()
    assert folded.arch == arch
    assert folded.layers[0].blocks[0].attn.scale == 8**-0.5
    # the file held float64, the model float32: fill it once more
    folded.load_state_dict(state_dict)
    for ours, theirs in zip(run(folded, x), expected):
        assert_close(ours, theirs, 1e-10)


def test_export_of_a_pruned_classifier(tmp_path):
    def build(arch=SHAPE, **kwargs):
        backbone = dict(type='CompressedSwin', arch=arch, **kwargs)
        return ImageClassifier(backbone, num_classes=5).eval()

    model = build(token_merging=MERGES['atme'], compactors=True)
    for block in find_compactors(model):
        for compactor in block:
            compactor.kept[:, ::3] = False
            compactor.weight.data[:, ::3] = 0
    x = torch.randn(2, 3, 64, 64)
    result = export(model, build, x, divisor=1)
    assert result.report['macs']['after'] == result.arch.macs(num_classes=5)
    path = tmp_path / 'small.pth'
    write_checkpoint(path, result.state_dict, result.arch)
    again = build(None, checkpoint=str(path))
    assert again.has_weights
    assert_close(run(again, x), run(model, x), 1e-5)


# -- checkpoints ------------------------------------------------------------


def as_microsoft(state_dict):
    """Patch merging after a stage, buffers in the file, a plain head."""
    out = {}
    for key, value in state_dict.items():
        for stage in (1, 2, 3):
            key = key.replace(
                f'layers.{stage}.downsample', f'layers.{stage - 1}.downsample'
            )
        out[key.replace('head.fc.', 'head.')] = value
    out['layers.0.blocks.1.attn_mask'] = torch.zeros(64, 49, 49)
    index = 'layers.0.blocks.1.attn.relative_position_index'
    out[index] = torch.zeros(49, 49, dtype=torch.long)
    return {'model': out}


def test_converting_releases(tmp_path):
    expected = timm_swin(224, num_classes=5).state_dict()
    paths = tmp_path / 'timm.pth', tmp_path / 'microsoft.pth'
    torch.save(expected, paths[0])
    torch.save(as_microsoft(expected), paths[1])
    for path in paths:
        state_dict, arch = convert(str(path))
        assert arch == CompressedSwin(SHAPE).arch
        assert state_dict.keys() == expected.keys()
        for key, value in state_dict.items():
            assert torch.equal(value, expected[key]), key


def test_pruned_checkpoint_brings_its_arch(tmp_path):
    model = small('atme', out_norms=False)
    path = tmp_path / 'pruned.safetensors'
    write_checkpoint(path, model.state_dict(), model.arch)
    again = CompressedSwin(
        dict(SHAPE, window_size=4), checkpoint=str(path), out_norms=False
    )
    assert again.arch == model.arch
    x = torch.randn(1, 3, 50, 64)
    for ours, theirs in zip(run(again.eval(), x), run(model, x)):
        assert torch.equal(ours, theirs)


def test_merging_is_added_to_a_dense_checkpoint(tmp_path):
    path = saved(timm_swin(224), tmp_path / 'timm.pth')
    model = CompressedSwin(
        SHAPE, checkpoint=path, token_merging=dict(layers=(3, 4))
    )
    assert model.arch.token_merging.layers == (3, 4)
    fuse = model.token_merging['2'].fuse
    assert torch.equal(fuse.weight, torch.eye(32).repeat(1, 2) / 2)


def test_other_windows_are_refused_or_resized(tmp_path):
    path = saved(timm_swin(224), tmp_path / 'timm.pth')
    with pytest.raises(CheckpointError, match='give window_size=4 beside'):
        CompressedSwin(dict(SHAPE, window_size=4), checkpoint=path)
    model = CompressedSwin(SHAPE, checkpoint=path, window_size=5)
    assert model.arch.window_size == 5
    name = 'layers.1.blocks.0.attn.relative_position_bias_table'
    table = model.get_parameter(name).unflatten(0, (9, 9))
    source = torch.load(path)[name].unflatten(0, (13, 13))
    torch.testing.assert_close(table[4, 4], source[6, 6])  # no offset
    # what rises linearly keeps rising so, nearly, and each head by itself
    ramp = torch.arange(13.0)[:, None, None] * torch.tensor([1.0, 10.0])
    state_dict = {
        **torch.load(path),
        name: ramp.expand(13, 13, 2).flatten(0, 1),
    }
    torch.save(state_dict, path)
    model = CompressedSwin(SHAPE, checkpoint=path, window_size=5)
    table = model.get_parameter(name).unflatten(0, (9, 9))
    steps = table[3:6] - table[2:5]
    assert (steps[..., 0] / (13 / 9) - 1).abs().max() < 0.05
    assert (steps[..., 1] / (130 / 9) - 1).abs().max() < 0.05


@pytest.mark.parametrize(
    'key, message',
    [
        ('layers.1.blocks.1.attn.qkv.bias', 'lacks'),
        ('layers.3.downsample.reduction.weight', 'lacks'),
        ('patch_embed.proj.weight', 'is not a Swin: it lacks'),
    ],
)
def test_loading_is_strict(tmp_path, key, message):
    state_dict = timm_swin(224).state_dict()
    del state_dict[key]
    torch.save(state_dict, tmp_path / 'part.pth')
    with pytest.raises(CheckpointError, match=f'{message}.*{key}'):
        CompressedSwin(SHAPE, checkpoint=str(tmp_path / 'part.pth'))


def test_checkpoints_of_others_are_refused(tmp_path):
    path = saved(timm_swin(224), tmp_path / 'timm.pth')
    with pytest.raises(CheckpointError, match='its embed_dim is 8'):
        CompressedSwin('swin_tiny', checkpoint=path)
    torch.save({'blocks.0.attn.qkv.weight': torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match='is not a Swin'):
        CompressedSwin(SHAPE, checkpoint=path)
    with pytest.raises(CheckpointError, match='not found: convert a Swin'):
        CompressedSwin(SHAPE, checkpoint='missing.pth')


def test_swins_that_are_not_ours_are_refused(tmp_path):
    path = saved(
        timm_swin(224, window_size=(7, 7, 14, 7)), tmp_path / 's3.pth'
    )
    with pytest.raises(CheckpointError, match='not one square window'):
        convert(path)
    path = saved(small(out_norms=False), tmp_path / 'pruned.pth')
    with pytest.raises(CheckpointError, match='must carry its arch'):
        convert(path)
    path = saved(timm_swin(224), tmp_path / 'timm.pth')
    with pytest.raises(CheckpointError, match='of the family vit'):
        convert(path, 'deit_tiny')


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(arch=None), 'arch is needed'),
        (dict(arch='deit_tiny'), 'family swin'),
        (dict(arch=None, token_merging=dict(layers=(1,))), 'needs an arch'),
        (dict(patch_slimming=dict(layers=(1,))), 'does not have'),
        (dict(init_cfg=dict(type='Pretrained')), 'use checkpoint='),
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
