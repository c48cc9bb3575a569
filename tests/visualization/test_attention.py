"""Attention maps, against the attention that the model itself computes."""

import numpy as np
import pytest
import torch

from mmvitcompress.channels import attach_compactors
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedSwin
from mmvitcompress.models.layers.blocks import Attention
from mmvitcompress.visualization import (
    attention_weights,
    class_attention,
    draw_attention,
)


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 40, generator=torch.manual_seed(0))


def last_weights(vit, images):
    """The last block's weights, from an input that is caught by hand."""
    caught = []
    handle = vit.blocks[-1].norm1.register_forward_hook(
        lambda module, inputs, output: caught.append(output)
    )
    with torch.no_grad():
        vit(images)
        handle.remove()
        return attention_weights(vit.blocks[-1].attn, caught[0])


def test_weights_give_what_the_layer_gives():
    torch.manual_seed(0)
    attn = Attention(12, num_heads=3, qk_dim=2, v_dim=5, scale=0.7)
    x, bias = torch.randn(2, 6, 12), torch.randn(2, 1, 1, 6)
    values = attn.qkv(x)[..., 12:].unflatten(2, (3, 5)).transpose(1, 2)
    weights = attention_weights(attn, x, bias)
    out = attn.proj((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(out, attn(x, bias))


def test_dense_map_is_the_class_tokens_row(make_vit, images):
    vit = make_vit(reg_tokens=2)
    weights = last_weights(vit, images)
    expected = weights.mean(1)[:, 0, 3:].view(2, 4, 5)
    torch.testing.assert_close(class_attention(vit, images), expected)
    one = weights[:, 1, 0, 3:].view(2, 4, 5)
    torch.testing.assert_close(class_attention(vit, images, 1), one)


def test_merged_tokens_share_theirs_among_their_patches(make_vit, images):
    vit = make_vit(token_merging=dict(layers=(2,)))  # 5 columns become 3
    weights = last_weights(vit, images).mean(1)[:, 0]
    shares = class_attention(vit, images)
    raw = weights[:, 1:].view(2, 4, 3)
    torch.testing.assert_close(shares[..., 0], raw[..., 0] / 2)
    torch.testing.assert_close(shares[..., 3], raw[..., 1] / 2)
    torch.testing.assert_close(shares[..., 4], raw[..., 2])  # a lone column
    torch.testing.assert_close(shares.sum((1, 2)), 1 - weights[:, 0])


def test_patches_that_have_left_receive_nothing(make_vit, images):
    slim = dict(base_layer=2, layers=(2, 3), keep_rate=0.5)
    vit = make_vit(
        patch_slimming=slim, token_merging=dict(layers=(1,), first='vertical')
    )
    weights = last_weights(vit, images).mean(1)[:, 0]
    shares = class_attention(vit, images)
    assert ((shares > 0).sum((1, 2)) == 6).all()  # 3 tokens of 2 patches
    torch.testing.assert_close(shares.sum((1, 2)), weights[:, 1:].sum(1))


def test_without_a_class_token_patches_vote(make_vit, images):
    vit = make_vit(class_token=False, token_merging=dict(layers=(3,)))
    weights = last_weights(vit, images).mean(1)  # (B, 12, 12)
    # tokens of the last column cover one patch, all others two
    votes = torch.tensor([2.0, 2.0, 1.0] * 4) / 20
    shares = class_attention(vit, images)
    torch.testing.assert_close(shares.sum((1, 2)), torch.ones(2))
    received = torch.einsum('q,bqk->bk', votes, weights).view(2, 4, 3)
    torch.testing.assert_close(shares[..., 2], received[..., 1] / 2)


def test_compactors_are_part_of_it(make_vit, images):
    vit = make_vit()
    before = class_attention(vit, images)
    compactors = attach_compactors(vit)
    torch.testing.assert_close(class_attention(vit, images), before)
    torch.nn.init.zeros_(compactors[-1].q.weight)  # no query, no preference
    shares = class_attention(vit, images)
    torch.testing.assert_close(shares, torch.full((2, 4, 5), 1 / 21))


def test_windows_are_refused(make_vit, images):
    swin = CompressedSwin(
        dict(embed_dim=8, depths=(1, 1), num_heads=(1, 2), img_size=32)
    )
    with pytest.raises(ConfigError, match='CompressedSwin'):
        class_attention(swin, images)
    local = make_vit(out=dict(window_size=2, global_blocks=(0,)))
    with pytest.raises(ConfigError, match='windows'):
        class_attention(local, images)
    with pytest.raises(ConfigError, match=r'0\.\.2, but got 3'):
        class_attention(make_vit(), images, head=3)


def test_maps_of_a_row_have_one_scale(make_vit, images):
    maps = {
        'dense': class_attention(make_vit(), images),
        'compressed': class_attention(make_vit(1), images),
    }
    pictures = [np.zeros((32, 40, 3), np.uint8)] * 2
    figure = draw_attention(pictures, maps, patch=8)
    dense, compressed = (axis.images[0] for axis in figure.axes[1:3])
    top = 100 * max(each[0].max().item() for each in maps.values())
    assert dense.get_clim() == compressed.get_clim()
    assert dense.get_clim() == pytest.approx((0, top))
