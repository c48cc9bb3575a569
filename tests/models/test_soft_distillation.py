"""Soft distillation by hand, and with patches that leave while it trains."""

import math

import pytest
import torch

from mmvitcompress.errors import ConfigError
from mmvitcompress.models import ImageClassifier
from mmvitcompress.models.losses.soft_distillation import (
    patch_loss,
    soft_losses,
)
from mmvitcompress.tokens import TokenState

ARCH = dict(embed_dim=24, depth=3, num_heads=3, patch_size=8, img_size=32)
BACKBONE = dict(type='CompressedViT', arch=ARCH)
SPARSE = dict(token_sparsification=dict(layers=(2,)), soft_slimming=True)
IMAGES = torch.randn(4, 3, 32, 32)
TARGETS = torch.tensor([0, 1, 2, 0])


def test_logits_by_hand():
    """Teacher (½, ½), student (⅘, ⅕) of class 0: ½ ln(½/⅘) + ½ ln(½/⅕)."""
    student = torch.tensor([[math.log(4.0), 0.0]])
    teacher = torch.zeros(1, 2)
    losses = soft_losses(student, torch.tensor([0]), teacher, 0.5)
    divergence = (math.log(0.5 / 0.8) + math.log(0.5 / 0.2)) / 2
    assert abs(losses['loss_cls'].item() + math.log(0.8)) < 1e-6
    assert abs(losses['loss_soft'].item() - 0.5 * divergence) < 1e-6


class Keeps:
    """Says that some patches are left."""

    def __init__(self, mask):
        self.mask = mask

    def alive(self, state):
        return self.mask


def test_patches_by_hand():
    """Of [CLS] and four patches of width 2; what is gone doesn't count."""
    ours = torch.tensor([[[9.0, 9], [1, 0], [0, 0], [0, 2], [5, 5]]])
    theirs = torch.zeros(1, 5, 2)
    state = TokenState.start((2, 2))
    squares = [0.5, 0, 2, 25]  # means over the width
    found = patch_loss(ours, state, theirs, 1)
    assert found.item() == sum(squares) / 4
    mask = torch.tensor([[1.0, 1, 1, 0]])
    found = patch_loss(ours, state, theirs, 1, (Keeps(mask),))
    assert abs(found.item() - 2.5 / 3) < 1e-6


def model(weights=None, **backbone):
    torch.manual_seed(0)
    teacher = ImageClassifier(BACKBONE, 3)
    weights = dict(soft=0.5, tokens=0.5) if weights is None else weights
    distillation = dict(teacher=teacher, **weights)
    return ImageClassifier(
        BACKBONE | backbone, 3, distillation=distillation
    ).train()


@pytest.mark.parametrize('method', [SPARSE, dict(token_merging=[2]), {}])
def test_all_terms_teach(method):
    student = model(**method)
    losses = student(IMAGES, TARGETS, mode='loss')
    assert [*losses] == ['loss_cls', 'loss_soft', 'loss_tokens']
    sum(losses.values()).backward()
    learning = [p for p in student.parameters() if p.requires_grad]
    assert all(p.grad.abs().sum() > 0 for p in learning)
    assert all(p.grad is None for p in student.teacher.parameters())
    assert not any('teacher' in name for name in student.state_dict())


def test_a_student_like_its_teacher_has_nothing_to_learn_from_it():
    student = model()
    student.load_state_dict(student.teacher.state_dict())
    losses = student(IMAGES, TARGETS, mode='loss')
    assert losses['loss_soft'].abs() < 1e-6
    assert losses['loss_tokens'].abs() < 1e-8
    only = model(dict(soft=1.0))(IMAGES, TARGETS, mode='loss')
    assert [*only] == ['loss_cls', 'loss_soft']


def test_refusals():
    with pytest.raises(ConfigError, match='soft=…, tokens=…'):
        model(dict(alpha=0.5, soft=0.5))
    with pytest.raises(ConfigError, match=r'distillation\.soft'):
        model(dict(soft=-1.0))
    wide = BACKBONE | dict(arch={**ARCH, 'embed_dim': 48})
    with pytest.raises(ConfigError, match='embed_dim is 24, but got 48'):
        ImageClassifier(
            BACKBONE,
            3,
            distillation=dict(teacher=ImageClassifier(wide, 3), tokens=1.0),
        )
