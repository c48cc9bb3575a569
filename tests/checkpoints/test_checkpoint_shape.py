"""A checkpoint tells the shape, a config what it asks of token methods."""

import copy
import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader

from mmvitcompress.analysis.candidates import build_candidate
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.file import Checkpoint, read_checkpoint
from mmvitcompress.engine.build import build, fit, load_stored
from mmvitcompress.engine.config import use_scope
from mmvitcompress.engine.hooks import StrictLoadHook
from mmvitcompress.engine.weights import choose_tested_weights, choose_weights
from mmvitcompress.errors import CheckpointError
from mmvitcompress.inference import deployed_config
from mmvitcompress.models import CompressedViT, ImageClassifier
from mmvitcompress.models.backbones import parts

BASE = dict(embed_dim=24, depth=4, num_heads=3, patch_size=8)
STORED = ViTArch(
    **BASE,
    img_size=(32, 48),
    qk_dims=(8, 4, 6, 2),
    mlp_dims=40,
    token_merging=dict(layers=(3,)),
)
CONFIG = dict(
    default_scope='mmvitcompress',
    model=dict(
        type='ImageClassifier',
        backbone=dict(
            type='CAITDeiT',
            arch=BASE,
            img_size=64,
            checkpoint='nobody/has/this.pth',
            compactors=True,
        ),
        num_classes=5,
        distillation=dict(teacher='of training'),
    ),
)


def load_for_test(config, path):
    stored = choose_tested_weights(config, path)
    use_scope(config)
    model = MODELS.build(config.model)
    if config.load_from:  # as MMEngine does
        content = CheckpointLoader.load_checkpoint(path)
        model.load_state_dict(content['state_dict'], strict=False)
    load_stored(model, stored, 'test')
    return model


def load_for_prediction(config, path):
    ready = deployed_config(config, path)
    use_scope(ready)
    model = MODELS.build(ready.model)
    load_stored(model, read_checkpoint(path), 'predict')
    return model


LOADERS = {
    'test': load_for_test,
    'benchmark': build_candidate,
    'predict': load_for_prediction,
    'export': partial(build, purpose='export'),
}


@pytest.fixture
def write(tmp_path):
    """A checkpoint of ``STORED``, of a whole classifier or an exported one."""

    def write(whole=True, with_arch=True):
        torch.manual_seed(0)
        model = ImageClassifier(dict(type='CompressedViT', arch=STORED), 5)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        tensors = model.state_dict()
        if not whole:
            tensors = {
                name.removeprefix('backbone.').replace('.fc.', '.'): value
                for name, value in tensors.items()
            }
        meta = dict(arch=STORED.to_dict()) if with_arch else {}
        path = str(tmp_path / 'trained.pth')
        torch.save(dict(state_dict=tensors, meta=meta), path)
        return path, model.state_dict()

    return write


def assert_equal(model, tensors, but=()):
    own = model.state_dict()
    assert own.keys() == tensors.keys()
    for name, value in tensors.items():
        assert name in but or torch.equal(own[name], value), name


@pytest.mark.parametrize('name', LOADERS)
def test_a_whole_model_is_built_as_it_was(write, name):
    """Image size included, for its position embedding has to fit."""
    path, tensors = write()
    model = LOADERS[name](Config(copy.deepcopy(CONFIG)), path)
    assert model.backbone.arch == STORED
    assert_equal(model, tensors)


@pytest.mark.parametrize('name', ['test', 'benchmark', 'predict'])
def test_a_backbone_is_resized_to_the_config(write, name):
    path, tensors = write(whole=False)
    model = LOADERS[name](Config(copy.deepcopy(CONFIG)), path)
    assert model.backbone.arch == STORED.replace(img_size=64)
    assert model.backbone.pos_embed.shape == (1, 1 + 8 * 8, 24)
    assert_equal(model, tensors, but=['backbone.pos_embed'])


@pytest.mark.parametrize('name', LOADERS)
def test_without_an_arch_the_config_tells_the_shape(write, name):
    config = Config(copy.deepcopy(CONFIG))
    backbone = config.model.backbone
    backbone.update(arch=STORED, img_size=None)
    path, tensors = write(with_arch=False)
    assert_equal(LOADERS[name](config, path), tensors)


def test_without_any_arch_the_file_it_started_from_tells(write, tmp_path):
    path, tensors = write(with_arch=False)
    start = str(tmp_path / 'start.pth')
    meta = dict(arch=STORED.to_dict())
    torch.save(dict(state_dict=tensors, meta=meta), start)
    for load in LOADERS.values():
        backbone = dict(type='CompressedViT', checkpoint=start)
        model = dict(type='ImageClassifier', backbone=backbone, num_classes=5)
        config = Config(dict(default_scope='mmvitcompress', model=model))
        assert_equal(load(config, path), tensors)


def stored(tensors, **meta):
    return Checkpoint('x.pth', {}, tensors, meta)


def test_compactors_are_built_where_the_checkpoint_has_them():
    pruned = CompressedViT(BASE, compactors=True).state_dict()
    for state_dict, expected in ((pruned, True), ({'cls_token': 0}, None)):
        for prefix in ('', 'backbone.'):
            model = copy.deepcopy(CONFIG['model'])
            tensors = {prefix + k: v for k, v in state_dict.items()}
            fit(model, stored(tensors, arch=BASE), 'test')
            assert model['backbone'].get('compactors') is expected


@pytest.mark.parametrize('purpose', ['measure', 'predict'])
def test_compactors_are_not_deployed(purpose):
    model = copy.deepcopy(CONFIG['model'])
    pruned = stored(CompressedViT(BASE, compactors=True).state_dict())
    with pytest.raises(CheckpointError, match='export it by'):
        fit(model, pruned, purpose)


def test_foreign_backbones_stay_as_they_are():
    model = dict(backbone=dict(type='ResNet', depth=18))
    fit(model, stored({'backbone.conv1.weight': 0}), 'test')
    assert model == dict(backbone=dict(type='ResNet', depth=18))


def test_an_arch_that_is_none():
    model = dict(backbone={})
    wrong = stored({'backbone.cls_token': 0}, arch='vit_small')
    with pytest.raises(CheckpointError, match=r"'x\.pth' must be a dict"):
        fit(model, wrong, 'test')


@pytest.fixture
def reads(monkeypatch):
    """Files that are opened, one entry each time."""
    found, load = [], torch.load

    def counted(file, *args, **kwargs):
        found.append(str(file))
        return load(file, *args, **kwargs)

    monkeypatch.setattr(torch, 'load', counted)
    return found


@pytest.mark.parametrize('whole', [True, False])
@pytest.mark.parametrize('purpose', ['measure', 'look', 'predict', 'test'])
def test_a_model_reads_its_file_once(write, reads, whole, purpose):
    path, _ = write(whole)
    build(Config(copy.deepcopy(CONFIG)), path, purpose)
    assert reads == [path]


@pytest.mark.parametrize('whole', [True, False])
def test_a_tested_model_reads_its_file_once(write, reads, whole):
    path, _ = write(whole)
    load_for_test(Config(copy.deepcopy(CONFIG)), path)
    assert reads == [path]


def test_student_and_teacher_read_one_file_once(write, reads):
    path, _ = write(whole=False)
    backbone = dict(type='CompressedViT', checkpoint=path)
    teacher = dict(type='ImageClassifier', backbone=backbone)
    ImageClassifier(backbone, 5, distillation=dict(teacher=teacher))
    assert reads == [path]


def test_a_run_that_goes_on_reads_its_file_once(write, reads, tmp_path):
    path, _ = write()
    newest = str(tmp_path / 'epoch_3.pth')
    run = dict(optimizer={}, message_hub={})
    torch.save(torch.load(path) | run, newest)
    Path(path).unlink()
    reads.clear()
    config = Config(dict(work_dir=str(tmp_path)))
    choose_weights(config, 'auto')
    assert config.load_from == newest and config.resume
    handed = CheckpointLoader.load_checkpoint(newest)
    assert handed.keys() == {'state_dict', 'meta', *run}
    assert reads == [newest]
    # what was handed over is let go
    CheckpointLoader.load_checkpoint(newest)
    assert reads == [newest] * 2


# -- token methods that the config asks for ---------------------------------

MERGES = dict(layers=(3,))
SLIMMING = dict(base_layer=1, layers=(2,), keep_rate=0.7)
SPARSE = dict(layers=(2,), keep_rate=0.7)


@pytest.fixture
def run(tmp_path):
    """A checkpoint of a classifier with token methods, and its tensors."""

    def run(whole, **methods):
        torch.manual_seed(0)
        arch = ViTArch(**BASE, img_size=(32, 48), **methods)
        model = ImageClassifier(dict(type='CompressedViT', arch=arch), 5)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        tensors = {
            name if whole else name.removeprefix('backbone.'): value
            for name, value in model.state_dict().items()
        }
        if not whole:
            tensors = {k.replace('.fc.', '.'): v for k, v in tensors.items()}
        path = str(tmp_path / 'run.pth')
        meta = dict(arch=arch.to_dict())
        torch.save(dict(state_dict=tensors, meta=meta), path)
        return path, model.state_dict()

    return run


@pytest.fixture
def logged(monkeypatch):
    """Lines that were logged."""
    lines = []
    monkeypatch.setattr(parts, 'print_log', lambda line, _: lines.append(line))
    return lines


def asking(kind='CompressedViT', **changes):
    backbone = dict(type=kind, arch=BASE, img_size=(32, 48), **changes)
    model = dict(type='ImageClassifier', backbone=backbone, num_classes=5)
    return Config(dict(default_scope='mmvitcompress', model=model))


ASKED = {
    # what ran, what is asked for
    'merges of a dense model': ({}, dict(token_merging=dict(layers=(2, 4)))),
    'more merges': (
        dict(token_merging=MERGES),
        dict(
            token_merging=dict(
                layers=(2, 3), directions=['vertical', 'horizontal']
            )
        ),
    ),
    'other merges': (
        dict(token_merging=MERGES),
        dict(token_merging=dict(layers=(2,))),
    ),
    'no merges': (
        dict(token_merging=MERGES),
        dict(token_merging=dict(layers=())),
    ),
    'fewer patches': (
        dict(patch_slimming=SLIMMING),
        dict(patch_slimming={**SLIMMING, 'keep_rate': 0.3}),
    ),
    'later slimming': (
        dict(patch_slimming=SLIMMING),
        dict(patch_slimming={**SLIMMING, 'layers': (3,)}),
    ),
    'fewer tokens': (
        dict(token_reorganization=SPARSE),
        dict(token_reorganization={**SPARSE, 'keep_rate': 0.3}),
    ),
    'tokens of a dense model': ({}, dict(token_reorganization=SPARSE)),
}


@pytest.mark.parametrize('case', ASKED)
@pytest.mark.parametrize('whole', [True, False])
@pytest.mark.parametrize('name', ['test', 'benchmark', 'predict'])
def test_what_the_config_asks_for_runs(run, logged, case, whole, name):
    """As a backbone of that arch does with the tensors that it has."""
    stored, asked = ASKED[case]
    path, tensors = run(whole, **stored)
    model = LOADERS[name](asking(**asked), path).eval()
    arch = ViTArch(**BASE, img_size=(32, 48), **asked)
    assert model.backbone.arch == arch
    expected = ImageClassifier(dict(type='CompressedViT', arch=arch), 5).eval()
    expected.load_state_dict(tensors, strict=False)
    images = torch.randn(2, 3, 32, 48)
    assert torch.equal(model(images), expected(images))
    (key,) = asked
    said = '\n'.join(logged)
    assert f'{key} runs as the config says' in said
    assert str(getattr(ViTArch(**BASE, **stored), key)) in said
    assert str(getattr(arch, key)) in said
    assert ('new merges start as means' in said) == (
        key == 'token_merging' and case != 'no merges'
    )


REFUSED = {
    'no predictor': (
        {},
        dict(patch_slimming=SLIMMING),
        'has no life predictor',
    ),
    'another block': (
        dict(patch_slimming=SLIMMING),
        dict(patch_slimming={**SLIMMING, 'base_layer': 2}),
        r'predictor .* trained for base_layer 1, .* asks for base_layer 2',
    ),
    'another direction': (
        dict(token_merging=MERGES),
        dict(token_merging={**MERGES, 'directions': 'vertical'}),
        r'token_merging.2 .* trained for horizontal, .* asks for vertical',
    ),
    'heads': (
        {},
        dict(arch={**BASE, 'num_heads': 6}),
        'its num_heads is 3, but the config asks for 6',
    ),
}


@pytest.mark.parametrize('case', REFUSED)
@pytest.mark.parametrize('whole', [True, False])
@pytest.mark.parametrize('name', ['test', 'benchmark', 'predict'])
def test_what_the_weights_do_not_allow_is_refused(run, case, whole, name):
    stored, asked, message = REFUSED[case]
    path, _ = run(whole, **stored)
    config = asking()
    config.model.backbone.update(asked)
    with pytest.raises(CheckpointError, match=message):
        LOADERS[name](config, path)


@pytest.mark.parametrize('name', ['test', 'predict'])
def test_a_named_form_merges_a_dense_model(run, name):
    path, _ = run(True)
    arch = {**BASE, 'depth': 4}
    config = asking('ToMeViT', token_matching=dict(r=2))
    config.model.backbone.arch = arch
    model = LOADERS[name](config, path)
    assert model.backbone.arch.token_matching is not None


def test_tested_runs_load_by_the_same_rule(run):
    path, _ = run(True)
    model = MODELS.build(asking(token_merging=MERGES).model)
    content = torch.load(path)
    runner = SimpleNamespace(
        model=model, _load_from=path, logger=logging.getLogger()
    )
    StrictLoadHook(testing=True).after_load_checkpoint(runner, content)
    # who resumes gets nothing untrained
    with pytest.raises(CheckpointError, match=r'lacks backbone\.tok'):
        StrictLoadHook().after_load_checkpoint(runner, content)
