"""Each backbone knows the other's archs and checkpoints, and names it."""

import re

import pytest
import torch

from mmvitcompress.arch.swin import SwinArch
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints import recognise as families
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.checkpoints.fill import reconcile
from mmvitcompress.checkpoints.recognise import Weights
from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.models import (
    ATMEDeiT,
    CAITDeiT,
    CDCPDeiT,
    CompressedSwin,
    CompressedViT,
    ToMeViT,
    UnmergePyramid,
    UnmergeUpsample,
)
from mmvitcompress.models.backbones import parts
from mmvitcompress.utils.checks import output_indices

VIT = ViTArch(embed_dim=16, depth=2, num_heads=2, patch_size=8, img_size=32)
SWIN = SwinArch(embed_dim=8, depths=(1, 1), num_heads=(1, 2), img_size=32)
PAIRS = [(CompressedViT, VIT, SWIN), (CompressedSwin, SWIN, VIT)]
BUILDERS = {SWIN: CompressedSwin, VIT: CompressedViT}


@pytest.fixture(params=['arch', 'dict', 'json'])
def form(request, tmp_path):
    """An arch as a config may have it."""

    def shape(arch):
        if request.param == 'json':
            arch.save(tmp_path / 'arch.json')
            return str(tmp_path / 'arch.json')
        return arch.to_dict() if request.param == 'dict' else arch

    return shape


@pytest.mark.parametrize(('backbone', 'own', 'other'), PAIRS)
def test_archs_of_the_other_family_are_refused(backbone, own, other, form):
    assert backbone(form(own)).arch == own
    message = f'family {own.family} .* use {BUILDERS[other].__name__}'
    with pytest.raises(ConfigError, match=message):
        backbone(form(other))


@pytest.mark.parametrize(
    ('backbone', 'name', 'remedy'),
    [
        (CompressedViT, 'swin_tiny', 'for a Swin use CompressedSwin'),
        (ATMEDeiT, 'swin_s', 'for a Swin use CompressedSwin'),
        (CompressedSwin, 'deit_tiny', 'for a plain ViT use CompressedViT'),
    ],
)
def test_names_of_the_other_family_are_refused(backbone, name, remedy):
    with pytest.raises(ConfigError, match=remedy):
        backbone(arch=name)
    with pytest.raises(ConfigError, match=remedy):
        backbone(arch=dict(base=name, mlp_dims=8))


@pytest.mark.parametrize(('backbone', 'own', 'other'), PAIRS)
@pytest.mark.parametrize('carries_arch', [True, False])
@pytest.mark.parametrize('named', [True, False])
def test_checkpoints_of_the_other_family_are_refused(
    backbone, own, other, carries_arch, named, tmp_path
):
    path = tmp_path / 'other.pth'
    state_dict = BUILDERS[other](other).state_dict()
    if carries_arch:
        write_checkpoint(path, state_dict, other)
    else:
        torch.save(state_dict, path)
    arch = own if named else None
    message = f'other.pth.* is not a .*use {BUILDERS[other].__name__}'
    with pytest.raises(CheckpointError, match=message):
        backbone(arch, checkpoint=str(path))


@pytest.mark.parametrize(('backbone', 'own', 'other'), PAIRS)
def test_missing_checkpoints_have_a_remedy(backbone, own, other, tmp_path):
    path = tmp_path / 'none.pth'
    message = re.escape(str(path)) + r'.* not found; .*(tools|configs)/.*PATH'
    with pytest.raises(CheckpointError, match=message):
        backbone(own, checkpoint=str(path))


@pytest.mark.parametrize(
    ('kind', 'path', 'remedy'),
    [
        (
            CAITDeiT,
            'checkpoints/cait_vit_micro_digits.pth',
            'tools/train.py configs/imagenet/cait_vit_micro_digits.py and '
            'tools/export_pruned.py, or',
        ),
        (
            CDCPDeiT,
            'checkpoints/cdcp_deit_tiny_in1k.pth',
            'configs/imagenet/cdcp_deit_t_in1k.py and',
        ),
        (
            CompressedSwin,
            'checkpoints/cait_swin_small_in1k.pth',
            'configs/imagenet/cait_swin_s_in1k.py and',
        ),
        (
            CompressedViT,
            'checkpoints/dense_vit_micro_tiny_imagenet_20.pth',
            'configs/imagenet/dense_vit_micro_tiny_imagenet_20.py and',
        ),
        (
            CompressedViT,
            'work_dirs/pretrain_vit_micro_digits/epoch_45.pth',
            'tools/train.py configs/imagenet/pretrain_vit_micro_digits.py, or',
        ),
        # of no recipe: the controls', and one of one's own
        (
            CompressedViT,
            'checkpoints/deit_small_in1k.pth',
            'convert a timm or DeiT model by tools/convert_checkpoint.py, or',
        ),
        (CDCPDeiT, 'mine.pth', 'such as configs/imagenet/cdcp_deit_s_in1k.py'),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_the_remedy_is_the_recipe_of_that_name(
    kind, path, remedy, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=re.escape(remedy)):
        kind(checkpoint=path)


def test_reconciling():
    merging = dict(layers=(1,))
    weights = Weights(families.VIT, {}, VIT, 'x.pth')
    wanted = VIT.replace(token_merging=merging, mlp_dims=32)
    lines = []
    assert reconcile(weights, None, lines.append) == VIT
    resolved = reconcile(weights, wanted, lines.append)
    assert resolved == VIT.replace(token_merging=merging)
    assert [line.split()[0] for line in lines] == ['mlp_dims', 'token_merging']
    assert lines[1].endswith('x.pth has None')
    with pytest.raises(CheckpointError, match=r'depth is 2, .* for 3'):
        reconcile(
            weights,
            VIT.replace(depth=3, qk_dims=8, v_dims=8, mlp_dims=64),
            lines.append,
        )


@pytest.mark.parametrize('kind', [CDCPDeiT, CAITDeiT])
def test_pruned_by_name_only_is_said(monkeypatch, kind):
    lines = []
    monkeypatch.setattr(parts, 'print_log', lambda line, _: lines.append(line))
    arch = dict(embed_dim=24, depth=8, num_heads=3)
    kind(arch)
    assert f'{kind.__name__} has all channels of the dense model' in lines[0]
    assert 'tools/export_pruned.py' in lines[0]
    kind({**arch, 'qk_dims': [8, 4] * 4})
    kind(arch, compactors=True)
    assert len(lines) == 1


def test_output_indices():
    assert output_indices(-1, 4, 'stage') == (3,)
    assert output_indices([2, 0, -1], 4, 'stage') == (2, 0, 3)
    for wrong, message in (
        ([4], r'0\.\.3 \(stages are counted from 0 here\), but got 4'),
        ([-5], 'but got -5'),
        ([], 'at least one stage'),
        ([3, -1], 'each only once'),
    ):
        with pytest.raises(ConfigError, match=message):
            output_indices(wrong, 4, 'stage')


@pytest.mark.parametrize(('backbone', 'own', 'other'), PAIRS)
@pytest.mark.parametrize('restore', [True, False])
@pytest.mark.parametrize('mode', ['cubic', None, ['nearest']])
def test_restore_modes_are_checked_at_once(
    backbone, own, other, restore, mode
):
    message = re.escape(f'one of nearest, bilinear, but got {mode!r}')
    with pytest.raises(ConfigError, match=f'restore_mode .* {message}'):
        backbone(own, restore=restore, restore_mode=mode)


@pytest.mark.parametrize(('backbone', 'own', 'other'), PAIRS)
def test_mmengine_ways_to_weights_are_refused(backbone, own, other):
    """mmseg hands ``model.pretrained`` to the backbone."""
    for name in ('pretrained', 'init_cfg'):
        with pytest.raises(
            ConfigError,
            match=f"{name} is not .*use backbone.checkpoint=.*'x.pth'",
        ):
            backbone(own, **{name: 'x.pth'})
        backbone(own, **{name: None})


@pytest.mark.parametrize(('backbone', 'own', 'other'), PAIRS)
@pytest.mark.parametrize('value', [1.5, True, '1', 5, -2])
def test_frozen_stages_are_checked(backbone, own, other, value):
    message = f'frozen_stages must be .* but got {value!r}'
    with pytest.raises(ConfigError, match=message):
        backbone(own, frozen_stages=value)


@pytest.mark.parametrize(('backbone', 'own', 'other'), PAIRS)
def test_initialising_keeps_what_was_loaded(backbone, own, other, tmp_path):
    """Other code, and MMEngine before training, calls it by convention."""
    path = tmp_path / 'x.pth'
    write_checkpoint(path, backbone(own, out_type='raw').state_dict(), own)
    model = backbone(own, checkpoint=str(path), out_type='raw')
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(5)
    model.init_weights()
    stored = torch.load(path)['state_dict']
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
        assert torch.equal(value, stored[key])


@pytest.mark.parametrize(
    'neck',
    [
        UnmergePyramid(8),
        UnmergeUpsample(fill='mask_token', in_channels=[8]),
    ],
)
def test_necks_can_be_initialised(neck):
    before = {k: v.clone() for k, v in neck.state_dict().items()}
    neck.init_weights()
    for key, value in neck.state_dict().items():
        assert torch.equal(value, before[key])


def test_what_is_written_in_short():
    """Layers alone, one output, one size; each as if written out."""
    net = dict(embed_dim=16, depth=4, num_heads=2, patch_size=8)
    short = CompressedViT(
        net, token_merging=(2, 3), out_indices=-1, img_size=(32,)
    )
    long = CompressedViT(
        net,
        token_merging=dict(layers=(2, 3)),
        out_indices=[3],
        img_size=(32, 32),
    )
    assert short.arch == long.arch and short.out_indices == long.out_indices


@pytest.mark.parametrize('shape', [(3, 32, 32), (32, 32), (1, 4, 32, 32)])
def test_what_is_no_batch_of_images_is_named(shape):
    vit = ToMeViT(
        dict(embed_dim=16, depth=2, num_heads=2, patch_size=8, img_size=32),
        token_matching=dict(r=1),
        restore=False,
    )
    assert vit(torch.zeros(2, 3, 32, 32))[-1].tokens.shape == (2, 14, 16)
    swin = CompressedSwin(
        dict(embed_dim=8, depths=(1, 1), num_heads=(1, 2), img_size=32)
    )
    for model in (vit, swin):
        with pytest.raises(ConfigError, match=r'shape \(B, 3, H, W\), but'):
            model(torch.zeros(shape))
