"""Lives and survivors, against what the backbone itself does."""

import numpy as np
import pytest
import torch

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.vit import ViT
from mmvitcompress.visualization import draw_life, predict_lives

SLIM = dict(base_layer=2, layers=(2, 3), keep_rate=0.6)
MERGED = dict(
    patch_slimming=SLIM, token_merging=dict(layers=(1,)), img_size=40
)


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 40, generator=torch.manual_seed(0))


def test_survivors_are_those_that_the_backbone_keeps(make_vit, images):
    vit = make_vit(patch_slimming=SLIM)
    lives = predict_lives(vit, images)
    outputs = ViT.forward(vit, images, take=range(4))
    for layer in SLIM['layers']:
        tokens, state = outputs[layer]  # of the next block, counted from 0
        left = tokens.shape[1] - 1
        assert lives.counts[layer] == (left, 20)
        for image in range(2):
            kept = lives.kept[layer][image].flatten().nonzero().ravel()
            expected = state.undo[-1].order[image, :left].sort().values
            assert kept.tolist() == expected.tolist()


def test_lives_have_the_papers_mean_and_deviation(make_vit, images):
    vit = make_vit(patch_slimming=SLIM)
    lives = predict_lives(vit, images).lives
    # 20 patches: 8 leave after block 2, 4 after block 3, 8 stay to the end
    expected = torch.tensor([2.0] * 8 + [3.0] * 4 + [4.0] * 8)
    assert lives.shape == (2, 4, 5)
    for life in lives:
        assert life.mean().item() == pytest.approx(expected.mean().item())
        assert life.std(correction=0).item() == pytest.approx(
            expected.std(correction=0).item(), rel=1e-5
        )


def test_merged_tokens_hand_their_lives_to_all_patches(make_vit, images):
    lives = predict_lives(make_vit(**MERGED), images)
    assert lives.lives.shape == (2, 4, 5)
    assert torch.equal(lives.lives[..., 0], lives.lives[..., 1])
    assert not torch.equal(lives.lives[..., 1], lives.lives[..., 2])
    assert lives.counts == {2: (8, 12), 3: (5, 12)}


def test_the_mode_stays_and_no_hook_is_left(make_vit, images):
    vit = make_vit(patch_slimming=SLIM).train()
    predict_lives(vit, images)
    assert vit.training
    assert not vit.patch_slimming.predictor._forward_hooks


def test_a_model_without_a_predictor_is_refused(make_vit, images):
    with pytest.raises(ConfigError, match='predicts no lives'):
        predict_lives(make_vit(), images)


def test_each_token_has_its_number(make_vit, images):
    lives = predict_lives(make_vit(**MERGED), images)
    pictures = [np.zeros((32, 40, 3), np.uint8)] * 2
    figure = draw_life(pictures, lives, patch=8)
    panels = figure.axes[:8]  # image, lives and two layers, twice
    numbers = [float(text.get_text()) for text in panels[1].texts]
    values = lives.lives[0, :, ::2].flatten()
    assert numbers == pytest.approx(values.tolist(), abs=0.051)
    assert '8 of 12' in panels[2].get_title()
