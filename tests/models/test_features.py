"""Losses and errors of features, by hand."""

import pytest
import torch
from token_methods import CASES, build, images, runs, sizes

from mmvitcompress.models.layers.features import (
    error_sums,
    feature_error,
    feature_losses,
    full_patches,
    normalised,
)
from mmvitcompress.tokens import TokenState
from mmvitcompress.tokens.methods.atme import merged
from mmvitcompress.tokens.restore import covered_means, covering

WHOLE = TokenState.start((1, 4))
PAIRED = merged(WHOLE, 'horizontal')
UP, DOWN = [-1.0, 1.0], [1.0, -1.0]


def outputs(*tokens, state=WHOLE):
    return [(torch.tensor([[*tokens]], dtype=torch.float64), state)]


def test_losses_by_hand():
    theirs = outputs(DOWN, UP, UP, UP, DOWN)
    losses = feature_losses(outputs(UP, DOWN, UP, UP, DOWN), theirs, 1)
    assert losses.keys() == {'map', 'prefix'}
    assert losses['prefix'].item() == pytest.approx(4, rel=1e-4)  # 2² each
    # one patch of four differs by 2; the teacher's have a variance of 1 − ½²
    assert losses['map'].item() == pytest.approx(4 / 0.75 / 4, rel=1e-4)
    # that which lies 1.5 from the mean is measured in its own length
    losses = feature_losses(outputs(DOWN, UP, UP, UP, UP), theirs, 1)
    assert losses['map'].item() == pytest.approx(4 / 1.5**2 / 4, rel=1e-4)
    assert losses['prefix'] == 0


def test_merged_tokens_are_held_against_the_mean_of_what_they_cover():
    low, high = [0.0, 0.0], [4.0, 4.0]
    # the pairs have the means 1 and 3, around 2, with a variance of 3
    theirs = outputs(low, [2.0] * 2, high, [2.0] * 2)
    ours = outputs([1.0] * 2, low, state=PAIRED)
    losses = feature_losses(ours, theirs, prefix=0)
    assert losses.keys() == {'map', 'merged'}
    assert losses['merged'].item() == pytest.approx(3**2 / 2 / 2, rel=1e-4)
    # 1, 1, 4 and 2 away; the ends are √2 deviations long
    away = (1 / 2 + 1 + 16 / 2 + 4) / 2 / 4
    assert losses['map'].item() == pytest.approx(away, rel=1e-4)
    both = feature_losses(ours * 2, [*theirs, *theirs], 0, terms=['map'])
    assert both == {'map': losses['map']}


def test_neither_a_loud_token_nor_a_loud_channel_rules():
    generator = torch.Generator().manual_seed(0)
    theirs, noise = torch.randn(2, 2, 90, 8, generator=generator).double()
    state = TokenState.start((9, 10))

    def loss(at, by):
        a, b = theirs + 0.1 * noise, theirs.clone()
        a[at], b[at] = a[at] * by, b[at] * by
        return feature_losses([(a, state)], [(b, state)], 0)['map'].item()

    usual = loss(0, 1)
    assert loss((..., 3), 1e4) == pytest.approx(usual, rel=1e-6)
    assert loss((0, 5), 1e2) < 2 * usual
    # a channel that says nothing isn't blown up
    assert loss((..., 3), 1e-9) < usual


def test_error_by_hand():
    theirs = outputs(UP, UP, UP, UP, DOWN)
    # the mean of the patches is (-½, ½): Σ|t − mean|² = 3·½ + 4.5 = 6
    missed = outputs(DOWN, UP, UP, UP, UP)
    error = feature_error(error_sums(missed, theirs, 1))
    assert error['feature_error'] == pytest.approx(8 / 6, rel=1e-4)
    assert error['prefix_error'] == pytest.approx(4, rel=1e-4)
    assert not any(feature_error(error_sums(theirs, theirs, 1)).values())


def test_errors_are_ratios_of_sums_and_means_of_blocks():
    sums = torch.tensor(
        [[[1.0, 4, 0, 0], [3, 3, 0, 0]], [[1.0, 4, 0, 0], [0, 3, 0, 0]]]
    )
    assert feature_error(sums) == pytest.approx(
        dict(feature_error=0.375, feature_error_1=0.25, feature_error_2=0.5)
    )


@torch.no_grad()
@runs(CASES)
def test_every_method_says_what_its_tokens_cover(net, methods):
    model = build(net, methods)
    prefix = getattr(model, 'num_prefix_tokens', 0)
    stages = getattr(model, 'layers', None) or model.blocks
    for size in sizes(net)[:3]:
        for x, state in model.intermediates(images(size), range(len(stages))):
            tokens = x[:, prefix:]
            count = tokens.shape[1]
            index = covering(state, len(x), count, 'cpu')
            full = full_patches(x, state, prefix)
            gone = index == count
            # where no patch has left there is the token that covers it
            place = index.clamp(max=count - 1)[..., None].expand_as(full)
            shown = tokens.gather(1, place)
            assert torch.equal(shown[~gone], full[~gone])
            assert {*index[~gone].tolist()} == {*range(count)}
            means = covered_means(full, index, count)
            torch.testing.assert_close(means, tokens)


def test_normalised_keeps_double_precision_and_raises_half():
    x = torch.randn(2, 3, 8)
    assert normalised(x.double()).dtype == torch.double
    half = normalised(x.bfloat16())
    assert half.dtype == torch.float
    torch.testing.assert_close(
        half.var(-1, unbiased=False), torch.ones(2, 3), rtol=1e-3, atol=0
    )
