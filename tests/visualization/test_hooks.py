"""Pictures that a run writes at its validations."""

import io

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)

from mmvitcompress.channels import find_compactors
from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import HOOKS


@pytest.fixture
def validate(classifier, tmp_path, forgotten_runs, monkeypatch):
    """Validates a classifier with the hook; returns what it has drawn."""

    def run(times=1, hook=None, backend='LocalVisBackend', **backbone):
        path, _ = classifier('tiny', **backbone)
        config = Config.fromfile(path)
        kind = 'mmvitcompress.CompressionVisualizationHook'
        config.custom_hooks = [dict(type=kind, images=2, **(hook or {}))]
        config.work_dir = str(tmp_path / 'work')
        config.visualizer = dict(
            type='Visualizer', vis_backends=[dict(type=backend)]
        )
        runner = Runner.from_cfg(config)
        for step in range(times):
            iteration = property(lambda self, step=step: step)
            monkeypatch.setattr(Runner, 'iter', iteration)
            runner.val()
        files = sorted((tmp_path / 'work').rglob('vis_image/*.png'))
        return runner, {file.name: file for file in files}

    return run


@pytest.mark.slow
def test_all_that_there_is_to_show(validate):
    runner, files = validate(
        token_merging=dict(layers=(2,)),
        patch_slimming=dict(base_layer=2, layers=(2, 3), keep_rate=0.5),
        compactors=True,
    )
    kinds = ('attention', 'channels', 'features', 'life', 'merges')
    assert list(files) == [f'compression_{kind}_0.png' for kind in kinds]
    for file in files.values():
        pixels = np.array(Image.open(file))
        assert pixels.std() > 10
    assert find_compactors(runner.model.backbone)


@pytest.mark.slow
def test_the_dense_model_and_the_interval(validate):
    _, files = validate(times=3, hook=dict(interval=2))
    assert list(files) == [
        'compression_attention_0.png',
        'compression_attention_2.png',
        'compression_features_0.png',
        'compression_features_2.png',
    ]


def test_tensorboard_holds_the_pictures_of_each_step(validate, tmp_path):
    validate(
        times=2, hook=dict(kinds=['features']), backend='TensorboardVisBackend'
    )
    (events,) = {f.parent for f in (tmp_path / 'work').rglob('events.out.*')}
    reader = EventAccumulator(str(events))
    reader.Reload()
    assert reader.Tags()['images'] == ['compression_features']
    # two files of one second may come in any order
    pictures = reader.Images('compression_features')
    pictures = sorted(pictures, key=lambda picture: picture.step)
    assert [picture.step for picture in pictures] == [0, 1]
    pixels = np.array(Image.open(io.BytesIO(pictures[0].encoded_image_string)))
    assert pixels.shape == (pictures[0].height, pictures[0].width, 3)
    assert pixels.std() > 10


def test_what_cannot_be_drawn_is_refused(validate):
    with pytest.raises(ConfigError, match="nothing to show of 'life'"):
        validate(hook=dict(kinds=['life']))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(kinds=['lives']), "but got 'lives'"),
        (dict(images=0), 'images must be .* but got 0'),
        (dict(interval='1'), "interval must be .* but got '1'"),
    ],
)
def test_arguments_are_checked(arguments, message):
    hook = HOOKS.get('mmvitcompress.CompressionVisualizationHook')
    with pytest.raises(ConfigError, match=message):
        hook(**arguments)
