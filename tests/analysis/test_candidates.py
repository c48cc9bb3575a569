"""Which weights and which shape a benchmarked model has."""

import pytest
import torch

from mmvitcompress.analysis.candidates import (
    build_candidate,
    choose_device,
    common_shape,
)
from mmvitcompress.analysis.configs import load_config
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.errors import CheckpointError, ConfigError


def same(model, state_dict):
    own = model.state_dict()
    return own.keys() == state_dict.keys() and all(
        torch.equal(own[key], value) for key, value in state_dict.items()
    )


@pytest.fixture
def config(make_config):
    """Merges before blocks 2 and 3, weights of its own."""
    config = make_config('image_classifier')
    config.model.backbone.checkpoint = None
    return config


@pytest.fixture
def trained(config, tmp_path):
    """A run's checkpoint, and the state that it holds."""
    model = build_candidate(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    path = tmp_path / 'epoch_1.pth'
    state_dict = model.state_dict()
    torch.save({'state_dict': state_dict, 'meta': {}}, path)
    return str(path), state_dict


def test_random_weights_are_the_same_each_time(config):
    assert same(build_candidate(config), build_candidate(config).state_dict())


def test_weights_of_a_run(config, trained):
    path, state_dict = trained
    assert same(build_candidate(config, path), state_dict)
    assert not same(build_candidate(config), state_dict)
    config.load_from = path
    assert same(build_candidate(config), state_dict)


def test_weights_of_another_model(config, trained):
    config.model.num_classes = 11
    with pytest.raises(CheckpointError, match=r'head\.fc'):
        build_candidate(config, trained[0])


def pruned_arch():
    return ViTArch.from_dict(
        dict(
            embed_dim=32,
            depth=4,
            num_heads=2,
            head_dim=16,
            img_size=(64, 64),
            mlp_dims=[32, 64, 96, 128],
            token_merging=dict(layers=(4,)),
        )
    )


@pytest.mark.parametrize('whole', [True, False])
def test_the_checkpoint_knows_its_shape(config, tmp_path, whole):
    """A run's and a backbone's bring widths, and merges of their own where
    the config asks for none."""
    arch = pruned_arch()
    config.model.backbone.pop('token_merging')
    backbone = dict(type='mmvitcompress.CompressedViT', arch=arch.to_dict())
    shaped = config.copy()
    shaped.model = {**config.model, 'backbone': backbone}
    model = build_candidate(shaped)
    torch.nn.init.normal_(model.backbone.cls_token)
    path = tmp_path / 'small.pth'
    if whole:
        meta = {'arch': arch.to_dict()}
        torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    else:
        write_checkpoint(path, model.backbone.state_dict(), arch)
    loaded = build_candidate(config, str(path))
    assert loaded.backbone.arch.token_merging.layers == (4,)
    assert loaded.backbone.arch.mlp_dims == arch.mlp_dims
    assert same(loaded.backbone, model.backbone.state_dict())


def test_checkpoints_that_are_named_must_exist(config, tmp_path):
    path = str(tmp_path / 'config.py')
    config.dump(path)
    with pytest.raises(CheckpointError, match=r'none\.pth'):
        build_candidate(config, str(tmp_path / 'none.pth'))
    options = {'model.backbone.checkpoint': str(tmp_path / 'none.pth')}
    with pytest.raises(CheckpointError, match=r'correct model\.backbone'):
        load_config(path, options)
    # one that only the config names stands for a shape
    config.model.backbone.checkpoint = str(tmp_path / 'none.pth')
    config.dump(path)
    build_candidate(load_config(path))
    # and one that is switched off is no file
    load_config(path, {'model.backbone.checkpoint': None})


def test_shapes_that_can_be_compared(make_config):
    merged, padded = make_config('upernet'), make_config('mask2former_seg')
    models = [build_candidate(merged), build_candidate(padded)]
    assert common_shape([merged], models[:1]) == (64, 96)
    assert common_shape([merged], models[:1], [48]) == (48, 48)
    with pytest.raises(ConfigError, match='different sizes'):
        common_shape([merged, padded], models)
    with pytest.raises(ConfigError, match='differently, to'):
        common_shape([merged, padded], models, [48, 96])
    assert common_shape([merged, padded], models, [64]) == (64, 64)


def test_devices():
    assert choose_device('cpu') == torch.device('cpu')
    expected = 'cuda' if torch.cuda.is_available() else 'cpu'
    assert choose_device(None).type == expected
    with pytest.raises(ConfigError, match="'toaster' cannot be used"):
        choose_device('toaster')
