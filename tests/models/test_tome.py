"""The ToMe peer: the dense ViT with tokens merged by similarity."""

import pytest
import torch
import torch.nn.functional as F

from mmvitcompress.arch.base import dense
from mmvitcompress.models import CompressedViT, ToMeViT
from mmvitcompress.tokens import TokenMatching, TokenMerging

SMALL = dict(
    embed_dim=24,
    depth=4,
    num_heads=3,
    patch_size=4,
    img_size=(20, 28),
    layer_scale=True,
    reg_tokens=1,
)
ODD = (17, 38)  # 5x10 patches of the embedding's 5x7


def pair(**matching):
    """A peer, and the dense model with the same weights."""
    torch.manual_seed(0)
    peer = ToMeViT(SMALL, token_matching=matching, out_indices=(0, 1, 2, 3))
    for parameter in peer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    control = CompressedViT(SMALL, out_indices=(0, 1, 2, 3))
    control.load_state_dict(peer.state_dict())
    return peer.eval(), control.eval()


def test_copies_of_a_patch_merge_without_loss():
    """With proportional attention a token of two equal patches is the two.

    Neighbours are equal, so that all tokens of the first set merge into
    their copies in the second.
    """
    peer, dense = pair(layers=(2,), proportional=True)
    with torch.no_grad():  # else copies differ by where they are
        for model in (peer, dense):
            model.pos_embed.zero_()
    patches = torch.randn(2, 3, 20, 4, 4)
    images = patches.repeat_interleave(2, 3).flatten(3)  # 5x8 patches
    with torch.no_grad():
        for ours, theirs in zip(peer(images), dense(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_keys_decide():
    """What merges are the tokens whose keys in the same block are nearest,
    averaged over heads; found here by hooks and by hand."""
    peer, _ = pair(layers=(2,), r=1)
    seen = {}
    qkv = peer.blocks[1].attn.qkv
    qkv.register_forward_hook(lambda m, i, out: seen.update(qkv=out))
    with torch.no_grad():
        before, after = peer(torch.randn(1, 3, 20, 28))[:2]
    keys = seen['qkv'][0, 2:, 24:48].unflatten(1, (3, 8)).mean(1)
    cosine = F.cosine_similarity(keys[::2, None], keys[None, 1::2], dim=-1)
    i, j = divmod(cosine.argmax().item(), cosine.shape[1])
    tokens = after[0].flatten(1).T
    same = (tokens[:, None] == tokens[None]).all(-1).triu(1).nonzero()
    assert same.tolist() == [sorted((2 * i, 2 * j + 1))]
    assert len(before[0].flatten(1).T.unique(dim=0)) == 35


def test_peer_of_atme_by_default():
    with torch.device('meta'):
        peer = ToMeViT('deit_small')
    spec = TokenMatching(macs_of=TokenMerging((5, 8)))
    assert peer.arch.reductions == (spec.resolved(peer.arch),)
    with torch.device('meta'):
        larger = ToMeViT('deit_small', img_size=512)
    assert larger.arch.token_matching.r > 4 * peer.arch.token_matching.r


def test_peer_costs_the_same_at_the_size_that_the_backbone_runs_at():
    with torch.device('meta'):
        net = CompressedViT(
            'deit_tiny',
            img_size=(160, 96),
            token_matching=dict(macs_of=dict(layers=(5, 8))),
        )
    atme = dense(net.arch).replace(token_merging=dict(layers=(5, 8)))
    saved = [1 - a.macs() / dense(net.arch).macs() for a in (net.arch, atme)]
    assert saved[0] == pytest.approx(saved[1], abs=0.02)  # r is whole
