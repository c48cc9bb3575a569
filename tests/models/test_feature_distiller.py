"""A student that learns from a dense teacher, without labels."""

import copy

import pytest
import torch
from token_methods import FIRST, FOR_VITS, ROWS

from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.models import CompressedViT, FeatureDistiller, ViT
from mmvitcompress.tokens import METHODS

ARCH = dict(embed_dim=24, depth=4, num_heads=3, patch_size=8, img_size=32)


@pytest.fixture
def x():
    return torch.randn(3, 3, 32, 40, generator=torch.manual_seed(0))


@pytest.fixture(scope='module')
def dense(tmp_path_factory):
    """The checkpoint of a dense backbone."""
    torch.manual_seed(1)
    model = CompressedViT(ARCH, final_norm=True)
    path = tmp_path_factory.mktemp('dense') / 'dense.pth'
    meta = {'arch': model.arch.to_dict()}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    return str(path)


def backbone(path, **kwargs):
    return dict(type='CompressedViT', arch=ARCH, checkpoint=path, **kwargs)


NOTHING = {
    f'{key}{i}': {key: arguments}
    for key, row in ROWS.items()
    for i, arguments in enumerate(row.nothing)
}

UNTRAINED = ('patch_slimming', 'token_sparsification')


@torch.no_grad()
@pytest.mark.parametrize('name', ['dense', *NOTHING])
def test_a_student_that_reduces_nothing_has_nothing_to_learn(dense, x, name):
    methods = NOTHING.get(name, {})
    # predictors would have to be there
    soft = any(
        key in UNTRAINED and not METHODS[key](**arguments).is_empty()
        for key, arguments in methods.items()
    )
    model = FeatureDistiller(
        backbone(dense, **methods, soft_slimming=soft)
    ).eval()
    losses = model(x, mode='loss')
    assert {*losses} <= {'loss_map', 'loss_prefix', 'loss_merged'}
    assert sum(losses.values()) < 1e-10
    assert torch.stack(model(x, mode='predict'))[..., [0, 2]].sum() < 1e-8


@pytest.mark.parametrize('key', FOR_VITS)
def test_gradients_reach_the_student_alone(dense, x, key):
    soft = key in UNTRAINED
    model = FeatureDistiller(
        backbone(dense, **FIRST[key], soft_slimming=soft)
    ).train()
    teacher = copy.deepcopy(model.teacher.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    before = model(x, mode='loss')
    total, logged = model.parse_losses(before)
    assert {*logged} == {'loss', *before} and total > 1e-3
    total.backward()
    learns = dict(model.backbone.named_parameters())
    missing = {n for n, p in learns.items() if p.grad is None}
    assert missing == {'norm.weight', 'norm.bias'}  # as the teacher has it
    optimizer.step()
    assert sum(model(x, mode='loss').values()) < total
    assert not any(m.training for m in model.teacher.modules())
    for name, value in model.teacher.state_dict().items():
        assert torch.equal(value, teacher[name])


def test_checkpoints_lack_the_teacher_and_keep_the_final_norm(dense):
    model = FeatureDistiller(backbone(dense, token_merging=(2, 3)))
    names = {n for n, _ in model.named_parameters()}
    plain = CompressedViT(ARCH, token_merging=(2, 3), final_norm=True)
    assert {*model.state_dict()} == {
        f'backbone.{n}' for n in plain.state_dict()
    }
    assert names == {*model.state_dict()}
    stored = torch.load(dense, weights_only=True)['state_dict']
    for name in ('norm.weight', 'blocks.3.mlp.fc2.weight'):
        assert torch.equal(
            model.state_dict()[f'backbone.{name}'], stored[name]
        )
    assert copy.deepcopy(model).teacher is model.teacher
    assert model.double().teacher.net.cls_token.dtype == torch.double


def test_terms_are_weighted(dense, x):
    terms = {}
    for weights in ({}, dict(map=2.0, merged=0.5)):
        model = FeatureDistiller(
            backbone(dense, token_merging=(2, 3)), weights=weights
        ).eval()
        terms[len(weights)] = model(x, mode='loss')
    ones, others = terms[0], terms[2]
    assert others['loss_map'] == 2 * ones['loss_map']
    assert others['loss_prefix'] == ones['loss_prefix'] > 0
    assert others['loss_merged'] > 0 and 'loss_merged' not in ones


def test_nets_are_taken_as_they_are(x):
    torch.manual_seed(0)
    arch = CompressedViT(ARCH).arch
    teacher = ViT(arch)
    student = ViT(arch.replace(token_merging=dict(layers=(2,))))
    model = FeatureDistiller(student, teacher, indices=-1)
    assert model.indices == [3] and model.teacher.net is teacher
    assert model(x, mode='loss')['loss_map'] > 0
    assert FeatureDistiller(student, teacher).indices == [0, 1, 2, 3]


def test_what_a_teacher_must_be(dense, x, tmp_path):
    merged = CompressedViT(ARCH, token_merging=(2,), final_norm=True)
    path = tmp_path / 'merged.pth'
    meta = {'arch': merged.arch.to_dict()}
    torch.save({'state_dict': merged.state_dict(), 'meta': meta}, path)
    with pytest.raises(ConfigError, match=r'dense.*token_merging'):
        FeatureDistiller(backbone(str(path)))
    model = FeatureDistiller(backbone(str(path)), teacher=dense)
    assert not model.teacher.net.arch.reductions
    narrow = CompressedViT({**ARCH, 'embed_dim': 12})
    with pytest.raises(ConfigError, match='embed_dim must be 24'):
        FeatureDistiller(backbone(dense), teacher=narrow)
    with pytest.raises(CheckpointError, match=r'none\.pth'):
        FeatureDistiller(backbone(dense), teacher='none.pth')
    with pytest.raises(ConfigError, match='weights may name'):
        FeatureDistiller(backbone(dense), weights=dict(maps=1.0))
    lonely = FeatureDistiller(dict(type='CompressedViT', arch=ARCH))
    assert lonely(x)[-1].shape == (3, 24, 4, 5)
    with pytest.raises(ConfigError, match='no teacher'):
        lonely(x, mode='loss')


def test_the_teacher_runs_in_autocast_as_the_student(dense, x):
    model = FeatureDistiller(backbone(dense, token_merging=(2,))).train()
    seen = []
    model.teacher.net.blocks[0].mlp.fc1.register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype)
    )
    with torch.autocast('cpu', torch.bfloat16):
        losses = model(x, mode='loss')
    assert seen == [torch.bfloat16]
    assert {loss.dtype for loss in losses.values()} == {torch.float}
