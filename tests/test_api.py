"""The one-call API, against timm's own models and hand-made references."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from timm.optim import param_groups_layer_decay

import mmvitcompress
from mmvitcompress.channels import (
    MacBudget,
    SelectionRules,
    attach_compactors,
    column_norms,
    select,
    set_kept_,
    shrink_masked_,
)
from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.models import CompressedViT, ImageClassifier

ROOT = Path(__file__).parents[1]
SMALL = dict(depth=3, embed_dim=64, num_heads=2, num_classes=5)
FAMILIES = {
    'deit': ('deit_tiny_patch16_224', dict(img_size=64)),
    'distilled': ('deit_tiny_distilled_patch16_224', dict(img_size=64)),
    'vit': ('vit_tiny_patch16_224', dict(img_size=(32, 64), in_chans=1)),
    'vit_avg': ('vit_tiny_patch16_224', dict(img_size=64, global_pool='avg')),
    'vit_gap': (
        'vit_base_patch16_224',
        dict(img_size=64, class_token=False, global_pool='avg', fc_norm=False),
    ),
    'deit3': ('deit3_small_patch16_224', dict(img_size=64)),
    'dinov2': ('vit_small_patch14_dinov2', dict(img_size=56, num_classes=0)),
    'dinov2_reg4': (
        'vit_small_patch14_reg4_dinov2',
        dict(img_size=56, num_classes=0),
    ),
}


def make(family='deit', seed=0, **kwargs):
    """A small model of timm, all of whose parameters matter."""
    name, changes = FAMILIES[family]
    torch.manual_seed(seed)
    model = timm.create_model(name, **{**SMALL, **changes, **kwargs}).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # layer scale starts near zero
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def images(model, batch=2):
    stem = model.patch_embed
    channels = stem.proj.in_channels
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, channels, *stem.img_size, generator=generator)
    return x.to(stem.proj.weight.dtype)


def difference(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


# -- with nothing asked for -------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float64, 1e-10)]
)
def test_nothing_compressed_is_timm(family, dtype, tolerance):
    theirs = make(family).to(dtype)
    before = copy.deepcopy(theirs.state_dict())
    ours = mmvitcompress.compress(theirs)
    x = images(theirs)
    assert difference(ours(x), theirs(x)) <= tolerance
    tokens = theirs.forward_features(x)
    assert difference(ours.forward_features(x), tokens) <= tolerance
    head = theirs.forward_head(tokens, pre_logits=True)
    assert difference(ours.forward_head(tokens, True), head) <= tolerance
    options = dict(indices=[0, -1], norm=True, return_prefix_tokens=True)
    if not theirs.num_prefix_tokens:
        del options['return_prefix_tokens']
    last, maps = ours.forward_intermediates(x, **options)
    their_last, their_maps = theirs.forward_intermediates(x, **options)
    assert difference(last, their_last) <= tolerance
    for a, b in zip(maps, their_maps, strict=True):
        for one, other in zip(a, b, strict=True):
            assert difference(one, other) <= tolerance
    options = dict(output_fmt='NLC', intermediates_only=True)
    ours, maps = (
        model.forward_intermediates(x, 2, **options)
        for model in (ours, theirs)
    )
    assert difference(torch.stack(ours), torch.stack(maps)) <= tolerance
    assert all(
        torch.equal(value, before[name])
        for name, value in theirs.state_dict().items()
    )


@torch.no_grad()
def test_other_sizes_are_taken_as_timm_does():
    theirs = make('dinov2_reg4', dynamic_img_size=True)
    ours = mmvitcompress.compress(theirs)
    x = torch.randn(1, 3, 42, 84)
    assert difference(ours(x), theirs(x)) <= 1e-5
    # and what is no multiple of the patch is padded
    maps = ours.forward_intermediates(torch.randn(1, 3, 43, 57))[1]
    assert maps[0].shape == (1, 64, 4, 5)


def test_distilled_heads_while_training():
    theirs = make('distilled').train()
    ours = mmvitcompress.compress(theirs)
    assert ours.training
    for model in (ours, theirs):
        model.set_distilled_training(True)
    x = images(theirs)
    for a, b in zip(ours(x), theirs(x), strict=True):
        assert difference(a, b) <= 1e-5


def test_macs_are_those_of_the_arch():
    ours = mmvitcompress.compress(
        'deit_small_patch16_224', [5, 8], pretrained=False
    )
    # CAIT Table I: 43.1 % of 4 608 338 304 with [CLS] counted
    assert ours.macs() / 4_608_338_304 == pytest.approx(1 - 0.431, abs=5e-4)
    assert ours.macs(512) == ours.arch.macs(512, num_classes=1000)
    pooled = mmvitcompress.compress(make('vit_avg'))
    # one LayerNorm less for all tokens, one for the pooled one
    tokens = pooled.arch.replace(token_merging=None).macs(64, 5)
    assert tokens - pooled.macs() == 5 * 64 * (17 - 1)


# -- refused ----------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'kwargs', 'reasons'),
    [
        ('eva02_tiny_patch14_224', {}, ['Eva', 'rotary', 'gated MLP']),
        ('vit_giant_patch14_dinov2', dict(depth=1), ['SwiGLU']),
        ('vit_base_patch32_clip_quickgelu_224', {}, ['pre_norm', 'QuickGELU']),
        ('vit_base_patch16_siglip_224', {}, ["global_pool='map'"]),
        ('vit_tiny_patch16_224', dict(qk_norm=True), ['qk_norm']),
        ('vit_tiny_patch16_224', dict(act_layer='gelu_tanh'), ['activation']),
        ('vit_tiny_patch16_224', dict(attn_drop_rate=0.1), ['attn_drop_rate']),
        ('swin_tiny_patch4_window7_224', {}, ['CompressedSwin']),
        ('resnet18', {}, ['ResNet']),
    ],
)
def test_what_is_not_supported_is_named(name, kwargs, reasons):
    with torch.device('meta'):
        model = timm.create_model(name, **kwargs)
    with pytest.raises(ConfigError) as caught:
        mmvitcompress.compress(model)
    for reason in reasons:
        assert reason in str(caught.value)


def test_what_only_shows_in_numbers_is_refused():
    theirs = make()
    theirs.blocks[1].attn.scale *= 2
    for block in theirs.blocks:
        block.attn.fused_attn = False
    with pytest.raises(ConfigError, match='differ by'):
        mmvitcompress.compress(theirs)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(token_merging=[4]), r'must lie in 1..3'),
        (dict(token_merging=dict(layer=[1])), "no key 'layer'"),
        (dict(channels=0.5), 'must be a dict'),
        (dict(channels=dict(target=1.5)), 'between 0 and 1'),
        (dict(channels=dict(target=0.99)), 'out of reach'),
        (dict(channels=dict(target=0.3, keep=1)), "no key 'keep'"),
        (dict(channels=dict(qk=1.5)), r'channels.qk .* got 1.5'),
        (dict(channels=dict(mlp_dims=257)), 'must not exceed the 256'),
        (dict(channels=dict(heads=2)), 'must have a target'),
        (
            dict(token_merging=[1], channels=dict(target=0.1)),
            'tokens alone save',
        ),
        (dict(slimming=dict(keep_rate=2)), 'keep_rate must lie'),
        (dict(slimming=dict(keep_rate=0.7)), r'must lie in 1..3'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        mmvitcompress.compress(make(), **arguments)


def test_wrong_models(tmp_path):
    with pytest.raises(ConfigError, match='neither a file nor a model'):
        mmvitcompress.compress('no_such_vit')
    with pytest.raises(ConfigError, match='must be a ViT of timm'):
        mmvitcompress.compress(3)
    with pytest.raises(CheckpointError, match='not found'):
        mmvitcompress.load(tmp_path / 'none.pth')
    with pytest.raises(CheckpointError, match='unwrap'):
        mmvitcompress.save(make(), tmp_path / 'x.pth')
    ours = mmvitcompress.compress(make(), [2])
    with pytest.raises(ConfigError, match='token_merging already'):
        mmvitcompress.compress(ours, [3])
    with pytest.raises(ConfigError, match='last blocks, but got 4'):
        ours.forward_intermediates(torch.zeros(1, 3, 64, 64), 4)


# -- compressed -------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize('family', ['deit', 'deit3', 'dinov2_reg4'])
def test_new_merges_are_means(family):
    theirs = make(family)
    ours = mmvitcompress.compress(theirs, dict(layers=(2, 3)))
    x = images(theirs)
    # the same with timm's blocks and pooling between them
    prefix = theirs.num_prefix_tokens
    tokens = theirs._pos_embed(theirs.patch_embed(x))
    maps = []
    for index, block in enumerate(theirs.blocks):
        if index:
            head, grid = tokens[:, :prefix], tokens[:, prefix:]
            height, width = (4, 4) if index == 1 else (4, 2)
            grid = grid.transpose(1, 2).unflatten(2, (height, width))
            grid = F.avg_pool2d(grid, (1, 2) if index == 1 else (2, 1))
            tokens = torch.cat([head, grid.flatten(2).transpose(1, 2)], 1)
        tokens = block(tokens)
        grid = tokens[:, prefix:].transpose(1, 2)
        grid = grid.unflatten(2, [(4, 4), (4, 2), (2, 2)][index])
        maps.append(F.interpolate(grid, (4, 4)))
    tokens = theirs.norm(tokens)
    assert difference(ours(x), theirs.forward_head(tokens)) <= 1e-5
    last, restored = ours.forward_intermediates(x)
    assert difference(last, tokens) <= 1e-5
    assert difference(torch.stack(restored), torch.stack(maps)) <= 1e-5


@torch.no_grad()
def test_the_smallest_channels_go():
    theirs = make('deit3').double()
    ours = mmvitcompress.compress(
        theirs, channels=dict(qk_dims=[32, 20, 7], v_dims=24, mlp_dims=100)
    )
    assert ours.arch.qk_dims == (32, 20, 7)
    assert ours.arch.mlp_dims == (100,) * 3
    # the same by zeros in timm's model
    for block, qk in zip(theirs.blocks, (32, 20, 7)):
        qkv, proj = block.attn.qkv, block.attn.proj
        for head in range(2):
            q = torch.arange(32) + 32 * head
            k, v = q + 64, q + 128
            score = qkv.weight[q].norm(dim=1) * qkv.weight[k].norm(dim=1)
            gone = score.argsort()[: 32 - qk]
            for rows in (q[gone], k[gone]):
                qkv.weight[rows], qkv.bias[rows] = 0, 0
            score = qkv.weight[v].norm(dim=1) * proj.weight[:, q].norm(dim=0)
            proj.weight[:, q[score.argsort()[:8]]] = 0
        fc1, fc2 = block.mlp.fc1, block.mlp.fc2
        score = fc1.weight.norm(dim=1) * fc2.weight.norm(dim=0)
        fc2.weight[:, score.argsort()[:156]] = 0
    x = images(theirs)
    assert difference(ours(x), theirs(x)) <= 1e-10


def test_channels_for_a_target():
    theirs = make()
    dense = mmvitcompress.compress(theirs).macs()
    rules = dict(target=0.4, min_mlp_dim=16)
    ours = mmvitcompress.compress(theirs, [3], rules)
    assert 0.4 <= 1 - ours.macs() / dense < 0.45
    arch = ours.arch
    assert all(width % 8 == 0 for width in arch.qk_dims + arch.mlp_dims)
    half = mmvitcompress.compress(theirs, channels=dict(v=0.5, mlp=0.25))
    assert half.arch.v_dims == (16,) * 3 and half.arch.mlp_dims == (64,) * 3
    assert half.arch.qk_dims == (32,) * 3
    again = mmvitcompress.compress(half, [2], dict(mlp=0.5))
    assert again.arch.v_dims == (16,) * 3 and again.arch.mlp_dims == (32,) * 3
    assert again.arch.token_merging.layers == (2,)


@torch.no_grad()
def test_what_a_loop_of_ones_own_pruned_is_folded(tmp_path):
    ours = mmvitcompress.compress(make().double())
    compactors = attach_compactors(ours.backbone)
    budget = MacBudget.of(ours.arch)
    for block in compactors:
        for part in block:
            part.weight.add_(torch.randn_like(part.weight) * 0.1)
    rules = SelectionRules(divisor=8)
    chosen = select(column_norms(compactors), budget, 0.3, rules)
    set_kept_(compactors, chosen.kept)
    with pytest.raises(ConfigError, match='have not become zero'):
        mmvitcompress.compress(ours)
    with pytest.raises(CheckpointError, match='fold them'):
        mmvitcompress.save(ours, tmp_path / 'x.pth')
    shrink_masked_(compactors, 10.0)
    folded = mmvitcompress.compress(ours)
    assert folded.macs() <= 0.705 * ours.macs()
    x = torch.randn(2, 3, 64, 64).double()
    assert difference(folded(x), ours(x)) <= 1e-10
    mmvitcompress.save(folded, tmp_path / 'x.pth')


def test_a_plan_is_what_compress_takes():
    theirs = make(img_size=128)
    found = mmvitcompress.plan(theirs, 0.5, channels=0.5)
    assert found.layers and found.channel_reduction
    ours = mmvitcompress.compress(theirs, **found.arguments())
    assert ours.arch.token_merging.layers == found.layers
    assert found.macs * 0.93 < ours.macs() <= found.macs
    tokens = mmvitcompress.plan('deit_small_patch16_224', 0.4)
    assert tokens == mmvitcompress.plan(
        timm.create_model('deit_small_patch16_224', device='meta'), 0.4
    )
    assert tokens.arguments()['channels'] is None
    assert mmvitcompress.plan('deit_small', 0.4, 512).dense_macs > 3e10


def slimmed(family='deit'):
    slimming = dict(base_layer=1, layers=(1, 2), keep_rate=0.5)
    return mmvitcompress.compress(make(family), slimming=slimming)


def test_slimmed_patches_leave_in_evaluation_only():
    ours = slimmed('dinov2_reg4')
    x = torch.randn(2, 3, 56, 56)
    assert ours.forward_features(x).shape == (2, 5 + 4, 64)
    maps = ours.forward_intermediates(x, norm=True, intermediates_only=True)
    assert [each.shape for each in maps] == [(2, 64, 4, 4)] * 3
    # 4 of 16 patches change in the last block
    changed = (maps[2] - maps[1]).abs().amax(1).flatten(1) > 0
    assert changed.sum(1).tolist() == [4, 4]
    ours.train()
    assert ours.forward_features(x).shape == (2, 5 + 16, 64)
    ours(x).square().sum().backward()
    predictor = ours.backbone.patch_slimming.parameters()
    assert all(p.grad.abs().sum() > 0 for p in predictor)


# -- as a module ------------------------------------------------------------


def compressed(family='deit'):
    return mmvitcompress.compress(
        make(family),
        dict(layers=(2,), directions='vertical'),
        dict(qk=0.75, v=0.5, mlp=0.5),
    )


@torch.no_grad()
@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_save_and_load(tmp_path, family, suffix):
    ours = compressed(family)
    path = tmp_path / f'ours.{suffix}'
    mmvitcompress.save(ours, path, metrics=dict(top1=81.2))
    again = mmvitcompress.load(path)
    assert again.arch == ours.arch and not again.training
    x = images(make(family))
    assert torch.equal(again(x), ours(x))
    data = resolve_model_data_config(again)
    assert data == resolve_model_data_config(ours)
    theirs = resolve_model_data_config(make(family))
    assert data['mean'] == theirs['mean']
    assert data['input_size'][1:] == ours.arch.img_size
    assert mmvitcompress.compress(path).macs() == ours.macs()


@torch.no_grad()
@pytest.mark.parametrize('family', ['deit', 'vit_avg', 'dinov2_reg4'])
def test_a_saved_model_is_a_backbones_checkpoint(tmp_path, family):
    ours = compressed(family)
    path = str(tmp_path / 'ours.pth')
    mmvitcompress.save(ours, path)
    backbone = CompressedViT(checkpoint=path, out_indices=(0, 2)).eval()
    x = images(make(family))
    maps = ours.forward_intermediates(x, [0, 2], intermediates_only=True)
    for a, b in zip(backbone(x), maps, strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_a_saved_model_is_a_classifiers_checkpoint(tmp_path):
    ours = compressed('distilled')
    path = str(tmp_path / 'ours.pth')
    mmvitcompress.save(ours, path)
    backbone = dict(type='CompressedViT', checkpoint=path)
    classifier = ImageClassifier(backbone, num_classes=5).eval()
    x = torch.randn(2, 3, 64, 64)
    assert classifier.has_weights
    assert torch.allclose(classifier(x), ours(x), atol=1e-6)
    # and the other way round
    state = {'state_dict': classifier.state_dict(), 'meta': {}}
    state['meta']['arch'] = ours.arch.to_dict()
    torch.save(state, path)
    assert torch.allclose(mmvitcompress.load(path)(x), ours(x), atol=1e-6)


@torch.no_grad()
def test_timms_files_load(tmp_path):
    theirs = make(embed_dim=128, num_heads=2)
    path = tmp_path / 'timm.pth'
    torch.save(theirs.state_dict(), path)
    x = images(theirs)
    assert difference(mmvitcompress.load(path)(x), theirs(x)) <= 1e-5


def test_it_trains_and_copies():
    ours = mmvitcompress.compress(
        compressed('deit3').train(), drop_path_rate=0.2
    )
    assert ours.training
    assert ours.backbone.blocks[-1].drop_path.drop_prob == pytest.approx(0.2)
    ours.set_grad_checkpointing()
    twin = copy.deepcopy(ours)
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    groups = param_groups_layer_decay(
        ours, 0.05, ours.no_weight_decay(), layer_decay=0.5
    )
    lr_scales = {
        id(p): group['lr_scale'] for group in groups for p in group['params']
    }
    optimizer = torch.optim.AdamW(groups, 0.01)
    x, y = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    F.cross_entropy(ours(x), y).backward()
    optimizer.step()
    moved = {k for k, v in ours.state_dict().items() if (v != before[k]).any()}
    assert moved == set(before)
    named = dict(ours.named_parameters())
    merge, block = 'backbone.token_merging.1.', 'backbone.blocks.1.'
    scales = [
        {lr_scales[id(p)] for n, p in named.items() if n.startswith(prefix)}
        for prefix in (merge, block, 'head.')
    ]
    assert scales[0] == scales[1] and scales[2] == {1.0}
    decays = {id(p): g['weight_decay'] for g in groups for p in g['params']}
    assert decays[id(named['backbone.pos_embed'])] == 0
    # the copy stayed, and takes the state
    assert all(torch.equal(twin.state_dict()[k], before[k]) for k in before)
    twin.load_state_dict(ours.state_dict())
    assert torch.equal(twin.eval()(x), ours.eval()(x))


def test_a_new_classifier():
    ours = mmvitcompress.compress(make('distilled'))
    ours.reset_classifier(9)
    assert ours(torch.randn(1, 3, 64, 64)).shape == (1, 9)
    assert [layer.out_features for layer in ours.get_classifier()] == [9, 9]
    with pytest.raises(ConfigError, match="must be 'token', but got 'avg'"):
        ours.reset_classifier(9, 'avg')
    ours = mmvitcompress.compress(make('dinov2'))
    ours.reset_classifier(3, 'avg')
    assert ours(torch.randn(1, 3, 56, 56)).shape == (1, 3)


@torch.no_grad()
def test_compile_and_autocast():
    x = torch.randn(2, 3, 64, 64)
    for model in (compressed(), slimmed()):
        expected = model(x)
        graph = torch.compile(model, backend='aot_eager', fullgraph=True)
        assert difference(graph(x), expected) <= 1e-5
        with torch.autocast('cpu', torch.bfloat16):
            assert model(x).shape == (2, 5)
        assert model(x[:1]).shape == (1, 5)


def test_the_demo():
    demo = ROOT / 'demo' / 'compress_your_vit.py'
    done = subprocess.run(
        [sys.executable, demo], check=True, capture_output=True, text=True
    )
    dense, cut, tuned = (
        float(re.search(rf'{name}: ([\d.]+)%', done.stdout)[1])
        for name in ('ViT', 'as cut', 'fine-tuned')
    )
    assert dense > 70 and tuned > 70 and tuned > cut


def test_only_what_is_asked_for_is_imported():
    code = (
        'import sys, mmvitcompress; '
        "assert 'mmvitcompress.api' not in sys.modules; "
        'mmvitcompress.compress, mmvitcompress.load; '
        "assert not {'mmseg', 'mmdet'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, '-c', code], check=True)
    with pytest.raises(AttributeError, match='no attribute'):
        mmvitcompress.no_such_thing  # noqa: B018
