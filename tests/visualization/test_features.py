"""Feature maps as colours."""

import numpy as np
import pytest
import torch

from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedSwin
from mmvitcompress.visualization import (
    colour_maps,
    draw_features,
    restored_maps,
)
from mmvitcompress.visualization.features import shared_colours


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 40, generator=torch.manual_seed(0))


def test_maps_are_what_the_backbone_returns(make_vit, images):
    vit = make_vit(
        token_merging=dict(layers=(2,)), out=dict(out_indices=(1, 3))
    )
    maps = restored_maps(vit, images)
    assert list(maps) == [1, 3]
    for ours, theirs in zip(maps.values(), vit(images)):
        torch.testing.assert_close(ours, theirs)


def test_levels_default_to_the_quarters(make_vit, images):
    vit = make_vit(out=dict(out_indices=(3,)), class_token=False)
    assert list(restored_maps(vit, images)) == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match=r'0\.\.3, but got \[4\]'):
        restored_maps(vit, images, [4])


def test_stages_of_a_swin(images):
    arch = dict(
        embed_dim=8, depths=(1, 1, 2), num_heads=(1, 2, 4), window_size=2
    )
    swin = CompressedSwin(arch, token_merging=dict(layers=(2,)))
    maps = restored_maps(swin, images)
    assert [tuple(each.shape[1:]) for each in maps.values()] == [
        (8, 8, 10),
        (16, 4, 5),
        (32, 2, 3),
    ]


def test_components_are_those_of_a_singular_value_decomposition():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 6)) * [9, 7, 5, 1, 1, 1]
    feature = torch.from_numpy(points.T.reshape(1, 6, 5, 10) + 3)
    ((colours,),) = shared_colours([feature])
    centred = points - points.mean(0)
    components = np.linalg.svd(centred)[2][:3]
    expected = centred @ components.T
    for channel in range(3):
        ours = colours[..., channel].ravel()
        inside = (ours > 0) & (ours < 1)  # the outer percents are clipped
        correlation = np.corrcoef(ours[inside], expected[inside, channel])
        assert abs(correlation[0, 1]) == pytest.approx(1, abs=1e-9)
        assert 0.9 < inside.mean() < 1


def test_equal_features_have_equal_colours_whatever_their_mean():
    feature = torch.randn(2, 5, 3, 4, generator=torch.manual_seed(0))
    one, other = shared_colours([feature, feature + 7])
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.shape(one) == (2, 3, 4, 3)


def test_what_cannot_share_colours_is_refused(make_vit, images):
    with pytest.raises(ConfigError, match=r'\[5, 6\]'):
        shared_colours([torch.randn(1, 5, 2, 2), torch.randn(1, 6, 2, 2)])
    vit = make_vit()
    maps = {
        'a': restored_maps(vit, images, [0]),
        'b': restored_maps(vit, images, [1]),
    }
    with pytest.raises(ConfigError, match=r'\[\[1\], \[2\]\]'):
        colour_maps(maps)


def test_other_backbones_are_refused(images):
    with pytest.raises(ConfigError, match='but got Conv2d'):
        restored_maps(torch.nn.Conv2d(3, 3, 1), images)


def test_pairs_stand_side_by_side(make_vit, images):
    maps = {
        name: restored_maps(make_vit(seed), images, [1, 3])
        for seed, name in enumerate(('dense', 'compressed'))
    }
    pictures = [np.zeros((32, 40, 3), np.uint8)] * 2
    figure = draw_features(pictures, colour_maps(maps), 8)
    headings = [axis.get_title() for axis in figure.axes[:5]]
    assert headings == [
        'image',
        'block 2\ndense',
        'block 2\ncompressed',
        'block 4\ndense',
        'block 4\ncompressed',
    ]
