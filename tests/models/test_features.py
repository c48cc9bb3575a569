"""Losses and errors of features, by hand."""

import pytest
import torch
from token_methods import CASES, build, images, runs, sizes

from mmvitcompress.models.layers.features import (
    channel_scale,
    covered_means,
    covering,
    error_sums,
    feature_error,
    feature_losses,
    full_patches,
    normalised,
)
from mmvitcompress.tokens import TokenState
from mmvitcompress.tokens.atme import merged

WHOLE = TokenState.start((1, 4))
PAIRED = merged(WHOLE, 'horizontal')
# of two channels, normalised to (-1, 1) and (1, -1) whatever their scale
UP, DOWN = [0.0, 2.0], [50.0, -50.0]


def outputs(*tokens, state=WHOLE):
    return [(torch.tensor([[*tokens]], dtype=torch.float64), state)]


def test_losses_by_hand():
    ours = outputs(UP, DOWN, UP, UP, DOWN)
    theirs = outputs(DOWN, UP, UP, UP, DOWN)
    losses = feature_losses(ours, theirs, prefix=1)
    assert losses.keys() == {'map', 'prefix'}
    assert losses['prefix'].item() == pytest.approx(4, rel=1e-4)  # 2² each
    # one patch of four; the teacher's ±1 have a variance of 1 − (½)²
    assert losses['map'].item() == pytest.approx(1 / 0.75, rel=1e-4)


def test_merged_tokens_are_held_against_the_mean_of_what_they_cover():
    ours = outputs(UP, UP, state=PAIRED)
    # the means of the pairs are (1, 5) and (5, 1), unlike two of the four;
    # as many are up as are down, so that the variance is 1
    theirs = outputs([2.0, 0.0], [0.0, 10.0], [0.0, 2.0], [10.0, 0.0])
    losses = feature_losses(ours, theirs, prefix=0)
    assert losses.keys() == {'map', 'merged'}
    assert losses['map'].item() == pytest.approx(2, rel=1e-4)
    assert losses['merged'].item() == pytest.approx(2, rel=1e-4)
    same = outputs(UP, DOWN, state=PAIRED), outputs(UP, UP, DOWN, DOWN)
    both = feature_losses(ours + same[0], theirs + same[1], 0)
    assert both['merged'].item() == pytest.approx(1, rel=1e-4)


def test_neither_a_loud_token_nor_a_loud_channel_rules():
    torch.manual_seed(0)
    theirs = torch.randn(2, 30, 8).double()
    ours = theirs + 0.1 * torch.randn(2, 30, 8).double()
    state = TokenState.start((5, 6))

    def loss():
        return feature_losses([(ours, state)], [(theirs, state)], 0)['map']

    quiet = loss()
    for x in (ours, theirs):
        x[:, 3] *= 1e4
    torch.testing.assert_close(loss(), quiet, rtol=1e-3, atol=0)
    x = normalised(theirs)
    scaled = x * channel_scale(x)
    deviation = scaled.flatten(0, 1).std(0, correction=0)
    torch.testing.assert_close(deviation, torch.ones(8).double())
    x[..., 0] *= 1e-6  # a channel that says nothing isn't blown up
    assert (x * channel_scale(x))[..., 0].abs().max() < 1e-3


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
