"""Hard distillation: its loss by hand, and a teacher that stays outside."""

import copy

import pytest
import timm
import torch
from mmengine.model import ExponentialMovingAverage

from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.models import ImageClassifier, TimmClassifier
from mmvitcompress.models.losses.distillation import hard_distillation

ARCH = dict(embed_dim=24, depth=2, num_heads=3, patch_size=8, img_size=32)
BACKBONE = dict(type='CompressedViT', arch=ARCH)
DISTILLED = dict(type='CompressedViT', arch={**ARCH, 'dist_token': True})
CONVNET = 'test_convnext'


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randn(4, 3, 32, 32)


@pytest.fixture
def teacher_file(tmp_path):
    """A trained classifier's checkpoint: five classes."""
    torch.manual_seed(1)
    path = tmp_path / 'teacher.pth'
    model = ImageClassifier(BACKBONE, 5)
    meta = {'arch': model.backbone.arch.to_dict()}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    return str(path)


def our_teacher(path):
    return dict(
        type='ImageClassifier',
        backbone=dict(type='CompressedViT', checkpoint=path),
    )


def test_loss_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    targets, teacher = torch.tensor([0, 0]), torch.tensor([1, 1])
    losses = hard_distillation(logits, targets, logits, teacher, alpha=0.25)
    # −log softmax: log 2 twice; 2 + log(1 + e⁻²) for class 0 of the second
    ln2, tail = 0.693147, 0.126928
    truth = (ln2 + 2 + tail) / 2
    taught = (ln2 + tail) / 2
    torch.testing.assert_close(
        torch.stack([losses['loss_cls'], losses['loss_distill']]),
        torch.tensor([0.75 * truth, 0.25 * taught]),
        rtol=0,
        atol=1e-5,
    )


def test_terms_are_logged_and_summed(images, teacher_file):
    model = ImageClassifier(
        BACKBONE,
        5,
        label_smoothing=0.1,
        distillation=dict(teacher=our_teacher(teacher_file), alpha=0.25),
    )
    targets = torch.tensor([0, 1, 2, 3])
    total, logged = model.parse_losses(model(images, targets, mode='loss'))
    assert set(logged) == {'loss', 'loss_cls', 'loss_distill'}
    teacher = ImageClassifier(
        dict(type='CompressedViT', checkpoint=teacher_file), 5
    ).eval()
    scores = model(images).log_softmax(1)
    smooth = torch.full((4, 5), 0.02)
    smooth[range(4), targets] = 0.92
    truth = -(smooth * scores).sum(1).mean()
    taught = -scores[range(4), teacher(images).argmax(1)].mean()
    torch.testing.assert_close(total, 0.75 * truth + 0.25 * taught)


def test_distillation_token_listens_to_the_teacher(images, teacher_file):
    model = ImageClassifier(
        DISTILLED,
        5,
        distillation=dict(teacher=our_teacher(teacher_file), alpha=0.5),
    )
    losses = model(images, torch.tensor([0, 1, 2, 3]), mode='loss')
    fc, dist = model.head.fc.weight, model.head.fc_dist.weight
    by_truth = torch.autograd.grad(
        losses['loss_cls'], [fc, dist], retain_graph=True, allow_unused=True
    )
    by_teacher = torch.autograd.grad(
        losses['loss_distill'], [fc, dist], allow_unused=True
    )
    assert by_truth[0].abs().sum() > 0 and by_truth[1] is None
    assert by_teacher[0] is None and by_teacher[1].abs().sum() > 0
    tokens = model.backbone(images)[-1]
    both = model.head.fc(tokens[:, 0]), model.head.fc_dist(tokens[:, 1])
    torch.testing.assert_close(model(images), (both[0] + both[1]) / 2)


def test_teacher_is_no_part_of_the_model(images, teacher_file):
    plain = ImageClassifier(BACKBONE, 5)
    model = ImageClassifier(
        BACKBONE,
        5,
        distillation=dict(teacher=our_teacher(teacher_file)),
    )
    teacher = model.teacher
    assert model.state_dict().keys() == plain.state_dict().keys()
    own = {id(p) for p in model.parameters()}
    assert not own & {id(p) for p in teacher.parameters()}
    assert len(own) == len(list(plain.parameters()))
    assert not any(p.requires_grad for p in teacher.parameters())

    before = copy.deepcopy(teacher.state_dict())
    model.train()
    assert model.training and not any(m.training for m in teacher.modules())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    losses = model(images, torch.tensor([0, 1, 2, 3]), mode='loss')
    sum(losses.values()).backward()
    optimizer.step()
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name

    # copies share it: EMA costs no second teacher
    assert copy.deepcopy(model)._teacher is model._teacher
    average = ExponentialMovingAverage(model)
    assert average.module._teacher is model._teacher
    average.update_parameters(model)
    # and it moves with the model
    model.to(torch.float64)
    assert {p.dtype for p in teacher.parameters()} == {torch.float64}
    losses = model(images.double(), torch.tensor([0, 1, 2, 3]), mode='loss')
    assert losses['loss_distill'].dtype == torch.float64


def test_teacher_runs_under_autocast_as_the_student(images, teacher_file):
    model = ImageClassifier(
        BACKBONE,
        5,
        distillation=dict(teacher=our_teacher(teacher_file)),
    )
    seen = []
    model.teacher.head.register_forward_hook(
        lambda module, args, output: seen.append(output.dtype)
    )
    with torch.autocast('cpu', torch.bfloat16):
        losses = model(images, torch.tensor([0, 1, 2, 3]), mode='loss')
    sum(losses.values()).backward()
    assert seen == [torch.bfloat16]


def test_timm_teacher_equals_timm(images, tmp_path):
    torch.manual_seed(2)
    peer = timm.create_model(CONVNET, num_classes=5).eval()
    path = tmp_path / 'peer.pth'
    torch.save({'state_dict': peer.state_dict()}, path)
    config = dict(
        type='TimmClassifier',
        name=CONVNET,
        checkpoint_path=str(path),
        num_classes=5,
        input_mean=(0.1, 0.2, 0.3),
        input_std=(0.4, 0.5, 0.6),
    )
    model = ImageClassifier(
        BACKBONE, 5, distillation=dict(teacher=config, alpha=0.25)
    )
    # back to pixels, and then as timm's own pipeline does
    own = peer.pretrained_cfg
    view = (3, 1, 1)
    pixels = images * torch.tensor([0.4, 0.5, 0.6]).view(view)
    pixels = pixels + torch.tensor([0.1, 0.2, 0.3]).view(view)
    theirs = (pixels - torch.tensor(own['mean']).view(view)) / torch.tensor(
        own['std']
    ).view(view)
    torch.testing.assert_close(
        model.teacher(images), peer(theirs), rtol=1e-4, atol=1e-5
    )
    assert torch.equal(
        model._teacher(images).argmax(1), peer(theirs).argmax(1)
    )


def test_teacher_must_know_the_classes(teacher_file):
    with pytest.raises(ConfigError, match=r'knows 5 classes.* has 7'):
        ImageClassifier(
            BACKBONE, 7, distillation=dict(teacher=our_teacher(teacher_file))
        )
    # told to have as many as the student, its classifier would be random
    config = {**our_teacher(teacher_file), 'num_classes': 7}
    with pytest.raises(ConfigError, match='must have learned something'):
        ImageClassifier(BACKBONE, 7, distillation=dict(teacher=config))
    config = dict(type='TimmClassifier', name=CONVNET, num_classes=5)
    with pytest.raises(ConfigError, match='must have learned something'):
        ImageClassifier(BACKBONE, 5, distillation=dict(teacher=config))


def test_wrong_arguments(teacher_file, tmp_path):
    for alpha in (0, -0.1, 1.1):
        with pytest.raises(ConfigError, match=f'alpha .* but got {alpha}'):
            ImageClassifier(
                BACKBONE,
                5,
                distillation=dict(
                    teacher=our_teacher(teacher_file), alpha=alpha
                ),
            )
    with pytest.raises(ConfigError, match="no model 'nonesuch'"):
        TimmClassifier('nonesuch')
    with pytest.raises(CheckpointError, match='is of another model'):
        TimmClassifier(CONVNET, checkpoint_path=teacher_file)
