"""Which exceptions of a tool become one line, and which keep a traceback."""

import pytest
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import TensorDataset

from mmvitcompress.utils import cli


class Model(nn.Module):
    def __init__(self, width=1, **kwargs):
        super().__init__()
        self.layer = nn.Linear(width, width, **kwargs)


def outcome(main, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    return stop.value.code, capsys.readouterr().err


def build(**config):
    return lambda: MODELS.build(config)


@pytest.mark.parametrize('key', ['widht', 'wdith'])
@pytest.mark.parametrize('kind', [Model, nn.Linear])
def test_a_key_that_nobody_knows(kind, key, capsys):
    status, stderr = outcome(build(type=kind, **{key: 1}), capsys)
    assert status == 1
    assert len(stderr.splitlines()) == 1
    assert f"'{key}'; remove or correct it in the config" in stderr


def test_a_key_that_no_loader_knows(capsys):
    """MMEngine's runner makes loaders without a registry."""
    dataset = TensorDataset()
    loader = dict(dataset=dataset, sampler=None, batch_size=1, shufle=1)
    status, stderr = outcome(
        lambda: Runner.build_dataloader(loader, seed=0), capsys
    )
    assert status == 1
    assert "'shufle'; remove or correct it in the config" in stderr


def test_a_type_that_nobody_knows(capsys):
    status, stderr = outcome(build(type='RestNet'), capsys)
    assert status == 1
    assert len(stderr.splitlines()) == 1
    assert 'RestNet is not in the' in stderr


def test_wrong_calls_of_ours_keep_their_traceback():
    def main():
        model = build(type=Model)()
        model.train(mod=False)

    with pytest.raises(TypeError, match=r'train\(\) got an unexpected'):
        cli.run(main)


def test_missing_keys_of_ours_keep_their_traceback():
    def main():
        raise KeyError('mIoU is not in the results')

    with pytest.raises(KeyError, match='mIoU'):
        cli.run(main)
