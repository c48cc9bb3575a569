"""Mixup and cutmix: what is mixed, and that labels follow."""

import numpy as np
import pytest
import torch

from mmvitcompress.engine.hooks.rng_state import (
    capture_rng_state,
    restore_rng_state,
)
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import ImageClassifier, MixupPreprocessor

ARCH = dict(embed_dim=24, depth=2, num_heads=3, patch_size=8, img_size=32)
BACKBONE = dict(type='CompressedViT', arch=ARCH)


def batch(classes=4, count=4):
    """Images that are constant: image i has the value of its class."""
    targets = torch.arange(count) % classes
    images = targets.float().view(-1, 1, 1, 1).expand(-1, 3, 16, 16)
    return [images.clone(), targets]


@pytest.mark.parametrize('mode', ['batch', 'pair', 'elem'])
@pytest.mark.parametrize(
    'alphas', [dict(mixup_alpha=0.8), dict(cutmix_alpha=1.0)]
)
def test_labels_follow_pixels(mode, alphas):
    """The mean pixel is the class's expectation under the soft target."""
    np.random.seed(0)
    data = batch()
    before = data[0].clone()
    mix = MixupPreprocessor(**alphas, mode=mode, num_classes=4)
    images, targets = mix(data, True)
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    torch.testing.assert_close(
        images.mean((1, 2, 3)), targets @ torch.arange(4.0)
    )
    assert not torch.equal(images, before)
    assert torch.equal(data[0], before)  # the loader's batch is left alone
    # each image is mixed with that at the same place from the end
    for i in range(4):
        assert set(targets[i].nonzero()[:, 0].tolist()) <= {i, 3 - i}


def test_only_in_training():
    mix = MixupPreprocessor(0.8, 1.0, label_smoothing=0.1, num_classes=4)
    data = batch(count=3)
    images, targets = mix(data, False)
    assert torch.equal(images, data[0]) and torch.equal(targets, data[1])


def test_smoothing_without_mixing():
    mix = MixupPreprocessor(label_smoothing=0.2, num_classes=4)
    _, targets = mix(batch(count=3), True)
    expected = torch.full((3, 4), 0.05)
    expected[range(3), range(3)] = 0.85
    torch.testing.assert_close(targets, expected)


def test_random_state_is_that_of_checkpoints():
    mix = MixupPreprocessor(0.8, 1.0, num_classes=4)
    state = capture_rng_state()
    first = [mix(batch(), True) for _ in range(3)]
    restore_rng_state(state)
    again = [mix(batch(), True) for _ in range(3)]
    for one, other in zip(first, again):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert not torch.equal(first[0][0], first[1][0])


def test_smoothing_the_classifier_or_the_mixup_is_the_same():
    losses = []
    for where in ('model', 'mixup'):
        torch.manual_seed(0)
        np.random.seed(0)
        model = ImageClassifier(
            BACKBONE,
            4,
            label_smoothing=0.1 * (where == 'model'),
            data_preprocessor=dict(
                type='MixupPreprocessor',
                mixup_alpha=0.8,
                label_smoothing=0.1 * (where == 'mixup'),
            ),
        )
        data = model.data_preprocessor(batch(), True)
        losses.append(model(*data, mode='loss')['loss'])
    torch.testing.assert_close(*losses)


def test_errors():
    def model(**mixup):
        return ImageClassifier(
            BACKBONE,
            4,
            label_smoothing=0.1,
            data_preprocessor=dict(type='MixupPreprocessor', **mixup),
        )

    with pytest.raises(ConfigError, match='smoothed twice'):
        model(label_smoothing=0.1)
    with pytest.raises(ConfigError, match=r'must be 4.* but got 5'):
        model(num_classes=5)
    with pytest.raises(ConfigError, match=r'batch has 3 images.*drop_last'):
        MixupPreprocessor(0.8, num_classes=4)(batch(count=3), True)
    for wrong in (
        dict(mixup_alpha=-1),
        dict(mixup_alpha=float('nan')),
        dict(cutmix_alpha=-1),
        dict(cutmix_alpha=float('inf')),
        dict(prob=float('nan')),
        dict(prob=2),
        dict(switch_prob=-0.1),
        dict(mode='half'),
        dict(label_smoothing=1),
        dict(label_smoothing=float('nan')),
        dict(num_classes=0),
        dict(num_classes=2.5),
    ):
        (name,) = wrong
        with pytest.raises(ConfigError, match=f'{name} must'):
            MixupPreprocessor(**wrong)
