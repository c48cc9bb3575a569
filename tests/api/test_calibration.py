"""Compressing by images, without training."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm_vits import images, make

import mmvitcompress
from mmvitcompress.api.calibration import Calibration
from mmvitcompress.errors import ConfigError, DataError


def structured(model):
    """Weights that differ in size, so that there is something to choose."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for block in model.blocks:
            for layer in (block.mlp.fc1, block.attn.qkv):
                scale = torch.rand(len(layer.weight), generator=generator)
                layer.weight *= 4 * scale[:, None] ** 2
                layer.bias += torch.randn(
                    len(layer.weight), generator=generator
                )
            for layer in (block.mlp.fc2, block.attn.proj):
                layer.weight *= 3
    return model


@pytest.mark.parametrize('methods', [{}, dict(token_merging=(2,))])
def test_images_leave_less_error_than_weights(methods, capsys):
    theirs = structured(make())
    x = images(theirs).repeat(12, 1, 1, 1)
    x = x + torch.randn(x.shape, generator=torch.manual_seed(0))
    reference = mmvitcompress.compress(theirs)
    channels = dict(target=0.5, min_mlp_dim=16)
    chosen = mmvitcompress.compress(
        theirs, channels=channels, calibration=x, **methods
    )
    said = capsys.readouterr().out
    plain = mmvitcompress.compress(theirs, channels=channels, **methods)
    measure = Calibration(reference, x).error
    left = chosen.feature_error['feature_error']
    assert f'{left:.4f}' in said
    assert measure(chosen.backbone) == chosen.feature_error
    assert plain.feature_error is None
    assert left < 0.8 * measure(plain.backbone)['feature_error']
    assert not any(measure(reference.backbone).values())
    dense = reference.macs()
    for model in (chosen, plain):
        assert 0.5 <= 1 - model.macs() / dense < 0.56


def test_scores_are_what_removing_adds_to_the_loss():
    """The second-order estimate against the loss without a hidden channel."""
    theirs = structured(make()).double()
    x = images(theirs).double().repeat(40, 1, 1, 1)
    x = x + torch.randn(x.shape, generator=torch.manual_seed(0)).double()
    model = mmvitcompress.compress(theirs)
    calibration = Calibration(model, x)
    net = mmvitcompress.compress(theirs).backbone
    moments = calibration.moments(net)
    scores = calibration.scores(net, moments)[1].mlp[0]
    fc2, mean = net.blocks[1].mlp.fc2, moments[1][1].mean
    found, expected = [], []
    for channel in np.argsort(scores)[::40]:
        weight, bias = fc2.weight.clone(), fc2.bias.clone()
        with torch.no_grad():
            fc2.bias += fc2.weight[:, channel] * mean[channel]
            fc2.weight[:, channel] = 0
            found.append(_map_loss(calibration, net))
            fc2.weight[:], fc2.bias[:] = weight, bias
        expected.append(scores[channel])
    assert np.argsort(found).tolist() == np.argsort(expected).tolist()
    ratios = np.array(found) / expected
    assert ratios.min() > 0.5 and ratios.max() < 2


@torch.no_grad()
def _map_loss(calibration, net):
    total = 0.0
    nets = net, calibration.net
    for batch in calibration.images.split(8):
        ours, theirs = (
            n.intermediates(batch, calibration.indices) for n in nets
        )
        for (a, _), (b, _) in zip(ours, theirs):
            b, difference = b[:, 1:], (a - b)[:, 1:]
            for own, gap in zip(b, difference):
                unit = own.std(0, correction=0)
                long = ((own - own.mean(0)) / unit).square().mean(1).sqrt()
                gap = gap / unit / long.clamp(min=1)[:, None]
                total += gap.square().mean().item()
    return total / len(calibration.images) / len(calibration.indices)


def test_folders_of_any_depth_are_read(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(10):
        image = rng.integers(0, 255, (40 + i, 50, 3), np.uint8)
        (tmp_path / f'{i % 3}/x').mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / f'{i % 3}/x/{i}.png')
    theirs = make()
    merged = mmvitcompress.compress(
        theirs, (2,), calibration=dict(images=tmp_path, count=4)
    )
    assert 0 < merged.feature_error['feature_error'] < 10
    assert 'on 1 images' in capsys.readouterr().out
    same = mmvitcompress.compress(theirs, calibration=tmp_path)
    assert not any(same.feature_error.values())


def test_what_is_no_calibration(tmp_path):
    theirs = make()
    with pytest.raises(DataError, match='no images'):
        mmvitcompress.compress(theirs, calibration=tmp_path)
    for wrong in (5, torch.zeros(3, 32, 32), dict(count=3)):
        with pytest.raises(ConfigError, match='calibration must be a folder'):
            mmvitcompress.compress(theirs, calibration=wrong)
