"""Bipartite matching (ToMe) against brute force, token by token."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import TokenMatching, TokenState, restore
from mmvitcompress.tokens.methods.tome import match, merge_pairs, moves
from mmvitcompress.tokens.state import take


def merge(x, sizes, state, keys, r, num_prefix=0):
    """Match, merge, and record what went where."""
    pairs = match(keys, r)
    state = state.reindexed(moves(pairs, keys.shape[1]))
    return *merge_pairs(x, pairs, sizes, num_prefix), state


def brute_force(members, keys, r):
    """ToMe for one image, on lists.

    Args:
        members: For each token the patches in it.
        keys: For each token its key.
        r: How many pairs merge.
    """

    def cosine(a, b):
        return float(a @ b / (a.norm() * b.norm()))

    if len(keys) < 2:
        return members
    first, second = range(0, len(keys), 2), range(1, len(keys), 2)
    best = {
        i: max(second, key=lambda j, i=i: cosine(keys[i], keys[j]))
        for i in first
    }
    ranked = sorted(first, key=lambda i: -cosine(keys[i], keys[best[i]]))
    after = {j: list(members[j]) for j in second}
    for i in ranked[:r]:
        after[best[i]] += members[i]
    return [members[i] for i in ranked[r:]] + list(after.values())


@example(height=1, width=2, num_prefix=1, share=1.0, seed=0)
@given(
    height=st.integers(1, 6),
    width=st.integers(2, 7),
    num_prefix=st.integers(0, 3),
    share=st.floats(0, 1),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_against_brute_force(height, width, num_prefix, share, seed):
    """Merge twice; then every token is the mean of the patches in it."""
    torch.manual_seed(seed)
    total = height * width
    start = torch.randn(2, num_prefix + total, 5, dtype=torch.float64)
    x, sizes, state = start, None, TokenState.start((height, width))
    groups = [[[p] for p in range(total)] for _ in range(2)]
    for _ in range(2):
        count = x.shape[1] - num_prefix
        r = int(share * (count // 2))
        keys = torch.randn(2, count, 3, dtype=torch.float64)
        x, sizes, state = merge(x, sizes, state, keys, r, num_prefix)
        groups = [brute_force(g, k, r) for g, k in zip(groups, keys)]
        assert x.shape[1] == num_prefix + count - r
    assert torch.equal(x[:, :num_prefix], start[:, :num_prefix])
    restored = restore(x[:, num_prefix:], state).flatten(2)
    for image, tokens in enumerate(groups):
        patches = start[image, num_prefix:]
        found = x[image, num_prefix:]
        for token, members in zip(found, tokens, strict=True):
            torch.testing.assert_close(token, patches[members].mean(0))
            for patch in members:
                assert torch.equal(restored[image, :, patch], token)
        assert sizes[image].tolist() == [len(members) for members in tokens]


def test_nothing_merged_is_nothing_changed():
    x, state = torch.randn(2, 7, 4), TokenState.start((2, 3))
    after, _, state = merge(x, None, state, x[:, 1:], 0, 1)
    assert after.shape == x.shape
    restored = restore(after[:, 1:], state)
    assert torch.equal(restored.flatten(2).transpose(1, 2), x[:, 1:])


def test_take_is_gather():
    x, index = torch.randn(3, 6, 4), torch.randint(0, 6, (3, 5))
    rows = index[..., None].expand(-1, -1, 4)
    assert torch.equal(take(x, index), x.gather(1, rows))


def test_gradients_are_shared_among_those_that_merged():
    x = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    pairs = match(torch.ones(1, 4, 1), 2)
    torch.autograd.gradcheck(lambda x: merge_pairs(x, pairs, None, 0)[0], x)


def test_low_precision_counts_exactly():
    """257 patches in one token: bfloat16 knows 256 and 258."""
    x = torch.ones(1, 2, 1, dtype=torch.bfloat16)
    state = TokenState.start((1, 257))
    state = state.reindexed(torch.tensor([[0] * 256 + [1]]))
    x, sizes, state = merge(x, torch.tensor([[256.0, 1.0]]), state, x, 1)
    assert sizes.tolist() == [[257.0]]
    assert x.dtype == torch.bfloat16 and x.item() == 1
    assert restore(x, state).shape == (1, 1, 1, 257)


def test_specification():
    half, few = TokenMatching((2, 4)), TokenMatching((2,), r=5)
    found = [half.merges_in(layer) for layer in (1, 2, 3, 4)]
    assert found == [False, True, False, True]
    assert all(map(TokenMatching().merges_in, range(1, 13)))
    assert [half.removed(n) for n in (8, 7, 1)] == [4, 3, 0]
    assert [few.removed(n) for n in (20, 9)] == [5, 4]
    for arguments, message in (
        (dict(layers='some'), "must be 'all' or whole numbers"),
        (dict(layers=(3, 2)), 'must ascend'),
        (dict(r=-1), 'at least 0, but got -1'),
        (dict(r=2, macs_of=dict(layers=(2,))), 'give one of the two'),
    ):
        with pytest.raises(ConfigError, match=message):
            TokenMatching(**arguments)
    for layers in ((0, 2), (5,)):
        with pytest.raises(ConfigError, match=r'must lie in 1\.\.4'):
            ViTArch(8, 4, 2, token_matching=layers)


def test_r_for_equal_macs():
    arch = get_arch('deit_small').replace(img_size=512)
    target = arch.replace(token_merging=(5, 8)).macs()
    spec = TokenMatching(macs_of=dict(layers=(5, 8))).resolved(arch)
    assert spec.macs_of is None

    def missed(r):
        return abs(arch.with_reductions(TokenMatching(r=r)).macs() - target)

    assert missed(spec.r) < 0.01 * target
    assert missed(spec.r) <= min(missed(spec.r - 1), missed(spec.r + 1))
    with pytest.raises(ConfigError, match='name more layers, or earlier'):
        TokenMatching((12,), macs_of=dict(layers=(5,))).resolved(arch)


def test_the_papers_figures():
    """DeiT-Small at 224 px: 41.2 % with r = 13 in every block (ToMe prints
    2.7 G), 41.6 % where ATME merges (CAIT, Table IX)."""
    arch = get_arch('deit_small')
    for arguments, saved in ((dict(r=13), 41.2), (dict(layers=(5, 8)), 41.6)):
        less = arch.replace(token_matching=arguments).macs(num_classes=1000)
        share = 100 * (1 - less / arch.macs(num_classes=1000))
        assert round(share, 1) == saved


def test_linear_layers_of_cait():
    """ToMe + Param: 22.6 M and −42.7 % with an r raised from 13 to 14."""
    arch = get_arch('deit_small')
    macs = arch.macs(num_classes=1000)
    found = arch.replace(token_matching=dict(r=14, linear_every=3))
    assert round(found.params(1000) / 1e6, 1) == 22.6
    assert round(1 - found.macs(num_classes=1000) / macs, 3) == 0.427
    assert [*map(found.token_matching.has_linear, range(1, 8))] == [
        *(True, False, False, True, False, False, True)
    ]


def test_linear_layers_start_as_the_identity():
    arch = ViTArch(24, 4, 3, patch_size=4, img_size=16)
    x = torch.randn(2, 3, 16, 16)
    torch.manual_seed(0)
    plain = ViT(arch.replace(token_matching=dict(r=2))).eval()
    model = ViT(arch.replace(token_matching=dict(r=2, linear_every=2))).eval()
    missing = model.load_state_dict(plain.state_dict(), strict=False)
    assert {name.split('.')[1] for name in missing.missing_keys} == {'0', '2'}
    torch.testing.assert_close(model(x)[0][0], plain(x)[0][0])
    nn.init.constant_(model.token_matching['2'].bias[:1], 1.0)
    moved = model(x)[0][0] - plain(x)[0][0]
    assert moved[:, 1:].abs().max() > 0.1
