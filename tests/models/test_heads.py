"""A classifier's head comes from, and goes to, other people's files."""

import pytest
import timm
import torch
from timm.data import resolve_model_data_config

import mmvitcompress
from mmvitcompress.analysis.macs import count_macs
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.checkpoints.heads import to_timm_head
from mmvitcompress.errors import CheckpointError
from mmvitcompress.models import ImageClassifier, ViT

ARCH = dict(embed_dim=24, depth=2, num_heads=3, patch_size=8, img_size=32)
TIMM = dict(
    embed_dim=24,
    depth=2,
    num_heads=3,
    patch_size=8,
    img_size=32,
    num_classes=5,
)


def timm_vit(distilled=False, **kwargs):
    torch.manual_seed(0)
    if not distilled:
        cls = timm.models.VisionTransformer
    else:
        cls = timm.models.deit.VisionTransformerDistilled
    model = cls(**TIMM, **kwargs).eval()
    for name, p in model.named_parameters():
        if 'head' in name:  # timm starts some heads at zero
            torch.nn.init.normal_(p)
    return model


def from_file(path, num_classes=5, **kwargs):
    backbone = dict(type='CompressedViT', checkpoint=str(path), **kwargs)
    return ImageClassifier(backbone, num_classes).eval()


@pytest.mark.parametrize('distilled', [False, True])
def test_equals_timm_there_and_back(tmp_path, distilled):
    peer = timm_vit(distilled)
    image = torch.randn(2, 3, 32, 32)
    expected = peer(image)
    torch.save(peer.state_dict(), tmp_path / 'timm.pth')
    arch = {**ARCH, 'dist_token': distilled}
    model = from_file(tmp_path / 'timm.pth', arch=arch)
    assert model.has_weights and model.num_classes == 5
    torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-5)

    # a training checkpoint of ours, head included
    meta = {'arch': model.backbone.arch.to_dict()}
    state_dict = {f'module.{k}': v for k, v in model.state_dict().items()}
    for name, content in (
        ('plain', model.state_dict()),
        ('wrapped', state_dict),
    ):
        path = tmp_path / f'{name}.pth'
        torch.save({'state_dict': content, 'meta': meta}, path)
        torch.testing.assert_close(from_file(path)(image), model(image))

    # exported under timm's names, for timm and for us
    exported = to_timm_head(
        {
            key.removeprefix('backbone.'): value
            for key, value in model.state_dict().items()
        }
    )
    assert exported.keys() == peer.state_dict().keys()
    other = timm_vit(distilled)
    other.load_state_dict(exported)
    torch.testing.assert_close(other(image), expected)
    path = tmp_path / 'exported.safetensors'
    write_checkpoint(path, exported, model.backbone.arch)
    torch.testing.assert_close(from_file(path)(image), model(image))


@pytest.mark.parametrize('size', [64, 96])
def test_swin_equals_timm(tmp_path, size):
    torch.manual_seed(0)
    shape = dict(embed_dim=24, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4))
    peer = timm.models.SwinTransformer(
        img_size=size, window_size=2, num_classes=5, **shape
    ).eval()
    torch.nn.init.normal_(peer.head.fc.weight)
    torch.save(peer.state_dict(), tmp_path / 'timm.pth')
    backbone = dict(
        type='CompressedSwin',
        arch=dict(family='swin', img_size=size, window_size=2, **shape),
        checkpoint=str(tmp_path / 'timm.pth'),
    )
    model = ImageClassifier(backbone, 5).eval()
    image = torch.randn(2, 3, size, size)
    assert model.has_weights
    torch.testing.assert_close(model(image), peer(image), rtol=1e-4, atol=1e-5)


def test_names_of_swin_stay():
    swin = {'layers.0.x': torch.zeros(1), 'head.fc.weight': torch.zeros(1)}
    assert to_timm_head(swin).keys() == swin.keys()


def test_another_number_of_classes_starts_anew(tmp_path):
    peer = timm_vit()
    torch.save(peer.state_dict(), tmp_path / 'timm.pth')
    model = from_file(tmp_path / 'timm.pth', 7, arch=ARCH)
    assert model.head.fc.weight.shape == (7, 24) and not model.has_weights
    assert model.head.fc.weight.std() < 0.03  # σ = 0.02, the peer's is 1
    # the backbone was loaded all the same
    assert torch.equal(model.backbone.cls_token, peer.cls_token)


def test_no_classifier_or_one_on_the_mean_starts_anew(tmp_path):
    for name, peer in (
        ('none', timm_vit()),
        ('mean', timm_vit(global_pool='avg', class_token=True)),
    ):
        state_dict = peer.state_dict()
        if name == 'none':
            del state_dict['head.weight'], state_dict['head.bias']
        else:
            # as models fine-tuned on the mean have it, beside the last norm
            state_dict['norm.weight'] = state_dict['fc_norm.weight']
            state_dict['norm.bias'] = state_dict['fc_norm.bias']
        torch.save(state_dict, tmp_path / f'{name}.pth')
        assert not from_file(tmp_path / f'{name}.pth', arch=ARCH).has_weights


def test_a_damaged_classifier_is_an_error(tmp_path):
    path = tmp_path / 'timm.pth'
    state_dict = timm_vit().state_dict()
    del state_dict['head.bias']
    torch.save(state_dict, path)
    with pytest.raises(CheckpointError, match=r'lacks head\.fc\.bias'):
        from_file(path, arch=ARCH)
    state_dict['head.bias'] = torch.zeros(5)
    state_dict['head.weight'] = torch.zeros(5, 23)
    torch.save(state_dict, path)
    # one that reads other features belongs to another net
    assert not from_file(path, arch=ARCH).has_weights


def test_a_pruning_run_must_be_exported(tmp_path):
    model = ImageClassifier(
        dict(type='CompressedViT', arch=ARCH, compactors=True), 5
    )
    for meta in ({}, {'arch': model.backbone.arch.to_dict()}):
        path = tmp_path / 'run.pth'
        torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
        with pytest.raises(CheckpointError, match='export_pruned'):
            from_file(path)


LVVIT = dict(ARCH, stem='conv', stem_dim=6, skip_scale=2.0, qkv_bias=False)


@pytest.fixture
def lvvit(tmp_path):
    """A checkpoint as LV-ViT's authors release it, and what it predicts."""
    torch.manual_seed(0)
    net = ViT(ViTArch(**LVVIT)).eval()
    classifiers = torch.randn(2, 5, 24), torch.randn(2, 5)
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        ((tokens, _),) = net(image)
    weight, bias = classifiers
    logits = tokens[:, 0] @ weight[0].T + bias[0]
    of_patches = tokens[:, 1:] @ weight[1].T + bias[1]  # (2, 16, 5)
    expected = logits + 0.5 * of_patches.max(1).values
    theirs = {
        key.replace('patch_embed.c', 'patch_embed.conv.c').replace(
            'patch_embed.bn', 'patch_embed.conv.bn'
        ): value
        for key, value in net.state_dict().items()
    }
    for name, w, b in zip(('head', 'aux_head'), weight, bias):
        theirs |= {f'{name}.weight': w, f'{name}.bias': b}
    path = tmp_path / 'lvvit.pth'
    torch.save(theirs, path)
    return path, image, expected


def test_lvvit_adds_half_of_its_patches_maximum(lvvit, tmp_path):
    path, image, expected = lvvit
    backbone = dict(type='CompressedViT', arch=LVVIT, checkpoint=str(path))
    model = ImageClassifier(backbone, 5, auxiliary_head=True).eval()
    torch.testing.assert_close(model(image), expected)
    arch = model.backbone.arch
    # and so do the one-call API, what it saves, and what starts from that
    write_checkpoint(tmp_path / 'ours.pth', model.state_dict(), arch)
    first = mmvitcompress.load(tmp_path / 'ours.pth')
    mmvitcompress.save(first, tmp_path / 'again.pth')
    for ours in (
        first,
        mmvitcompress.load(tmp_path / 'again.pth'),
        mmvitcompress.compress(first),
    ):
        torch.testing.assert_close(ours(image), expected)
        assert resolve_model_data_config(ours)['crop_pct'] == 0.9
        counted = count_macs(ours, image[:1]).total
        assert ours.macs() == counted == arch.macs(num_classes=5 * 17)
    ours.reset_classifier(7)
    assert ours(image).shape == (2, 7)
    merged = mmvitcompress.compress(first, [2])
    assert merged(image).shape == (2, 5)
    losses = model.train()(image, torch.tensor([0, 1]), 'loss')
    losses['loss'].backward()
    assert all(p.grad is not None for p in model.head.parameters())


def test_a_dropped_auxiliary_classifier_is_said(lvvit, monkeypatch):
    path, image, expected = lvvit
    lines = []
    monkeypatch.setattr(
        'mmvitcompress.models.heads.image_classifier.log', lines.append
    )
    backbone = dict(type='CompressedViT', arch=LVVIT, checkpoint=str(path))
    model = ImageClassifier(backbone, 5).eval()
    assert any('auxiliary_head=True' in line for line in lines)
    assert not torch.allclose(model(image), expected)
    plain = timm_vit()
    torch.save(plain.state_dict(), path)
    with pytest.raises(CheckpointError, match='aux'):
        ImageClassifier(
            dict(type='CompressedViT', arch=ARCH, checkpoint=str(path)),
            5,
            auxiliary_head=True,
        )
