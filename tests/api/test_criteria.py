"""Which channels go: criteria by name, of one's own, and step by step."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm_vits import images, make

import mmvitcompress
from mmvitcompress.api.calibration import Calibration
from mmvitcompress.api.planning import _errors
from mmvitcompress.channels.compensation import means_of
from mmvitcompress.channels.importance import (
    low_pass,
    magnitudes,
    random_scores,
    taylor,
)
from mmvitcompress.errors import ConfigError

TARGET = dict(target=0.4, min_mlp_dim=16)


def compressed(model=None, **channels):
    calibration = channels.pop('calibration', None)
    return mmvitcompress.compress(
        model or make(), channels=channels, calibration=calibration
    )


def widths(model):
    return model.arch.qk_dims, model.arch.v_dims, model.arch.mlp_dims


def test_random_scores_are_those_of_their_seed():
    net = mmvitcompress.compress(make()).backbone
    first, again, other = (random_scores(net, seed) for seed in (1, 1, 2))
    flat = [
        np.concatenate([part.ravel() for block in each for part in block])
        for each in (first, again, other)
    ]
    assert (flat[0] == flat[1]).all() and (flat[0] != flat[2]).all()
    assert abs(flat[0].mean() - 0.5) < 0.02
    shapes = [[part.shape for part in block] for block in magnitudes(net)]
    assert shapes == [[part.shape for part in block] for block in first]


@pytest.mark.parametrize('size', [(8, 8), (7, 12)])
def test_low_pass_is_a_gaussian_of_frequencies(size):
    """By sums over waves, frequency by frequency."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    sigma, parts = min(size) * 0.5 / 2, []
    for u in range(size[0]):
        for v in range(size[1]):
            rows = torch.arange(size[0]).double()[:, None] * u / size[0]
            columns = torch.arange(size[1]).double() * v / size[1]
            wave = (2j * torch.pi * (rows + columns)).exp()
            amount = (x * wave.conj()).sum((2, 3), keepdim=True)
            far = min(u, size[0] - u) ** 2 + min(v, size[1] - v) ** 2
            gain = np.exp(-far / (2 * sigma**2))
            parts.append(gain * amount * wave / (size[0] * size[1]))
    expected = sum(parts)
    assert expected.imag.abs().max() < 1e-12
    found = low_pass(x, 0.5)
    torch.testing.assert_close(found, expected.real, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('criterion', ['taylor', 'lfs'])
def test_criteria_of_images_choose_by_them(criterion):
    theirs = make()
    x = images(theirs).repeat(8, 1, 1, 1)
    x = x + torch.randn(x.shape, generator=torch.manual_seed(0))
    with pytest.raises(ConfigError, match="calibration='images/'"):
        compressed(theirs, criterion=criterion, **TARGET)
    found = compressed(theirs, criterion=criterion, calibration=x, **TARGET)
    by_size = compressed(
        theirs, criterion='magnitude', calibration=x, **TARGET
    )
    assert 0.4 <= 1 - found.macs() / compressed_dense(theirs).macs() < 0.5
    assert not torch.equal(found(x[:1]).detach(), by_size(x[:1]).detach())


def compressed_dense(model):
    return mmvitcompress.compress(model)


def test_lfs_sees_low_frequencies_only():
    """What is in the filtered-out frequencies changes no score but by what
    the dense net says of the whole images."""
    theirs = make().double()
    model = mmvitcompress.compress(theirs)
    x = images(theirs).double().repeat(5, 1, 1, 1)
    calibration = Calibration(model, x)
    moments = calibration.moments(model.backbone)
    found = calibration.scores(model.backbone, moments, 'lfs')
    seen = []
    for image in calibration.images[:, None]:
        blurred = model.backbone.intermediates(
            low_pass(image), calibration.indices
        )
        whole = model.backbone.intermediates(image, calibration.indices)
        terms = [
            F.mse_loss(
                F.layer_norm(a[:, 0], a.shape[-1:]),
                F.layer_norm(b[:, 0].detach(), b.shape[-1:]),
            )
            for (a, _), (b, _) in zip(blurred, whole)
        ]
        seen.append(sum(terms) / len(terms))
    expected = taylor(model.backbone, seen, means_of(moments))
    for ours, theirs_ in zip(found, expected):
        for a, b in zip(ours, theirs_):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12)


def test_labels_serve_by_a_criterion_of_ones_own():
    """Taylor of a classifier's own loss."""
    theirs = make(num_classes=5)
    model = mmvitcompress.compress(theirs)
    x = images(theirs)
    targets = torch.arange(len(x)) % 5

    def by_labels(net):
        theirs_ = mmvitcompress.compress(theirs)
        theirs_.backbone = net
        return taylor(net, [F.cross_entropy(theirs_(x), targets)])

    found = compressed(theirs, criterion=by_labels, **TARGET)
    assert widths(found) != widths(compressed(theirs, **TARGET))
    assert found.macs() < 0.6 * model.macs()


def test_steps_score_what_is_left():
    theirs, seen = make(), []

    def watching(net):
        seen.append((net.arch.mlp_dims, net.arch.v_dims))
        return magnitudes(net)

    dense = compressed_dense(theirs).macs()
    found = compressed(theirs, criterion=watching, steps=4, **TARGET)
    assert len(seen) == 4 and len({*seen}) > 1
    assert 0.4 <= 1 - found.macs() / dense < 0.5
    once = compressed(theirs, criterion=watching, **TARGET)
    assert len(seen) == 5
    plain = compressed(theirs, **TARGET)
    assert torch.equal(once(images(theirs)), plain(images(theirs)))
    merged = mmvitcompress.compress(
        theirs, token_merging=(2,), channels=dict(steps=2, **TARGET)
    )
    assert 0.4 <= 1 - merged.macs() / dense < 0.5


@pytest.mark.parametrize(
    'channels, message',
    [
        (dict(criterion='best', **TARGET), 'channels.criterion must be one'),
        (dict(steps=0, **TARGET), 'channels.steps must be'),
        (dict(steps=2, qk=0.5), 'needs a target'),
    ],
)
def test_refusals(channels, message):
    with pytest.raises(ConfigError, match=message):
        compressed(**channels)


def test_fractions_and_widths_take_a_criterion():
    theirs = make()
    found = [
        compressed(theirs, criterion='random', seed=seed, v=0.5)
        for seed in (0, 0, 1)
    ]
    x = images(theirs)
    first, again, other = (model(x).detach() for model in found)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert widths(found[0]) == widths(compressed(theirs, v=0.5))


def test_lfe_is_planned_by_images():
    """The cascade's counts, whose error is that of what compress makes."""
    theirs, x = make(depth=4, img_size=64), torch.randn(6, 3, 64, 64)
    method = 'token_energy'
    found = mmvitcompress.plan(theirs, 0.25, method=method, calibration=x)
    assert abs(found.reduction - 0.25) < 0.03  # one of 16 patches is 0.01
    ours = mmvitcompress.compress(theirs, **found.arguments(), calibration=x)
    assert ours.arch.reductions == (found.spec,)
    calibration = Calibration(mmvitcompress.compress(theirs), x)
    errors, asked = _errors(theirs, x), []
    for spec in (found.spec, type(found.spec)((2,), 0.5)):
        net = mmvitcompress.compress(theirs, **{method: spec}).backbone
        error = calibration.error(net, calibration.images)
        error = error['feature_error']
        asked.append(error)
        assert errors(spec) == pytest.approx(error, rel=1e-5)
    assert asked[0] != asked[1] > 0
    # what the model has already is left out, as in all plans
    again = mmvitcompress.plan(ours, 0.25, method=method, calibration=x)
    assert again.spec == found.spec


def test_images_plan_what_they_can():
    x = torch.randn(5, 3, 64, 64)
    with pytest.raises(ConfigError, match='leave calibration out'):
        mmvitcompress.plan(make(depth=4), 0.2, calibration=x)
    with pytest.raises(ConfigError, match='needs weights'):
        mmvitcompress.plan(
            'deit_small', 0.2, method='token_energy', calibration=x
        )
