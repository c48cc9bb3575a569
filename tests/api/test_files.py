"""Models that were saved: loaded again, by others too."""

import pytest
import torch
from timm.data import resolve_model_data_config
from timm_vits import FAMILIES, compressed, difference, images, make

import mmvitcompress
from mmvitcompress.models import CompressedViT, ImageClassifier


@pytest.mark.slow
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
