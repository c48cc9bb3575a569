"""UnmergeGuided against its formula on maps that are restored already."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedViT, UnmergeGuided, UnmergeUpsample

ARCH = dict(embed_dim=24, depth=4, num_heads=3, patch_size=8, img_size=32)
METHODS = {
    'dense': {},
    'ATME': dict(token_merging=dict(layers=(2, 4))),
    'diagonal': dict(token_merging=dict(layers=(2, 3), directions='diagonal')),
    'ToMe': dict(token_matching=dict(layers=(2, 3), r=3)),
    'EViT': dict(token_reorganization=dict(layers=(2,), keep_rate=0.5)),
    'life': dict(
        patch_slimming=dict(base_layer=2, layers=(2, 3), keep_rate=0.6)
    ),
    'both': dict(
        token_merging=dict(layers=(2,)),
        patch_slimming=dict(base_layer=2, layers=(2, 3), keep_rate=0.6),
    ),
}
SIZES = [(32, 32), (40, 24), (56, 8)]


def backbone(method, **kwargs):
    torch.manual_seed(0)
    net = CompressedViT(ARCH, restore=False, **METHODS[method], **kwargs)
    net.init_weights()
    return net.eval()


def neck(**kwargs):
    """One that has learned something."""
    torch.manual_seed(1)
    made = UnmergeGuided(24, hidden=10, **kwargs)
    for value in made.parameters():
        nn.init.normal_(value, std=0.3)
    return made


def by_hand(made, maps):
    guide = made.norm(maps[made.guide].movedim(1, -1))
    for index, x in enumerate(maps):
        if index == made.guide:
            yield x
            continue
        part, x = made.details[str(index)], x.movedim(1, -1)
        hidden = F.gelu(part.token(part.norm(x)) + part.guide(guide))
        yield (x + part.out(hidden)).movedim(-1, 1)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('method', METHODS)
def test_maps_are_those_of_the_formula(method, size):
    net, made = backbone(method).double(), neck().double()
    outputs = net(torch.randn(2, 3, *size, dtype=torch.float64))
    whole = UnmergeUpsample()(outputs)
    found = made(outputs)
    for a, b in zip(found, by_hand(made, whole), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    # maps that the backbone has restored are taken as well
    for a, b in zip(made(whole), found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize('method', METHODS)
def test_a_new_neck_restores_and_no_more(method):
    outputs = backbone(method)(torch.randn(1, 3, 32, 40))
    for a, b in zip(UnmergeGuided(24)(outputs), UnmergeUpsample()(outputs)):
        assert torch.equal(a, b)


def test_any_map_before_the_merges_may_guide():
    net = backbone('ATME', out_indices=(3, 0, 1))
    outputs = net(torch.randn(1, 3, 32, 32))
    made = neck(num_ins=3, guide=1)
    found, whole = made(outputs), UnmergeUpsample()(outputs)
    for a, b in zip(found, by_hand(made, whole), strict=True):
        torch.testing.assert_close(a, b)
    assert torch.equal(found[1], whole[1])
    assert not torch.equal(found[0], whole[0])


def test_gradients_reach_all_that_learns():
    net, made = backbone('ATME').train(), neck()
    maps = made(net(torch.randn(2, 3, 32, 32)))
    sum(x.square().mean() for x in maps).backward()
    for part in (net, made):
        assert all(p.grad.abs().sum() > 0 for p in part.parameters())


def test_it_tells_apart_what_a_token_has_merged():
    """Tokens that are means of pairs; a map from before the merge has what is
    missing, in other channels."""
    from mmvitcompress.tokens import TokenMap, TokenState, restore
    from mmvitcompress.tokens.methods.atme import merged

    torch.manual_seed(0)
    whole, mixed = torch.randn(8, 16, 6), torch.randn(6, 6)
    state = TokenState.start((4, 4))
    guide = TokenMap(whole @ mixed, state)
    means = whole.unflatten(1, (8, 2)).mean(2)
    pairs = TokenMap(means, merged(state, 'horizontal'))
    target = restore(whole, state)
    lost = F.mse_loss(restore(*pairs), target).item()
    made = UnmergeGuided(6, num_ins=2, hidden=48)
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(300):
        loss = F.mse_loss(made([guide, pairs])[1], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert lost > 0.4 and loss.item() < 0.1 * lost


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype):
    net, made = backbone('ATME'), neck()
    x = torch.randn(2, 3, 32, 32)
    expected = made(net(x))
    with torch.autocast('cpu', dtype=dtype):
        found = made(net(x))
    for a, b in zip(found, expected):
        assert (a.float() - b).abs().max() < 0.05 * b.abs().max()


def test_one_graph_for_all_sizes():
    net, made = backbone('ATME'), neck()
    model = nn.Sequential(net, made)
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    with torch.no_grad():
        for size in SIZES:
            x = torch.randn(2, 3, *size)
            for a, b in zip(compiled(x), model(x)):
                torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(embed_dim=0), 'embed_dim must be'),
        (dict(num_ins=0), 'num_ins must be'),
        (dict(hidden=-1), 'hidden must be'),
        (dict(guide=4), 'index of one of num_ins = 4 maps, 0..3, but got 4'),
        (dict(guide=True), 'but got True'),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        UnmergeGuided(**dict(embed_dim=24) | kwargs)


def test_what_does_not_fit_is_named():
    outputs = backbone('ATME')(torch.randn(1, 3, 32, 32))
    with pytest.raises(ConfigError, match='maps of the backbone, 4, but got'):
        UnmergeGuided(24, num_ins=3)(outputs)
    with pytest.raises(ConfigError, match='width of the backbone, 24, but'):
        UnmergeGuided(12)(outputs)
    for method in ('ATME', 'ToMe', 'EViT', 'life'):
        outputs = backbone(method)(torch.randn(1, 3, 32, 32))
        with pytest.raises(ConfigError, match='map 3 cannot guide, since tok'):
            UnmergeGuided(24, guide=3)(outputs)
