"""``distill``: training without labels, in one call."""

import numpy as np
import pytest
import torch
from PIL import Image
from runs import forget_runs
from timm_vits import make

import mmvitcompress
from mmvitcompress.api.calibration import Calibration
from mmvitcompress.errors import ConfigError, DataError

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    (root / 'deep/er').mkdir(parents=True)
    for i in range(40):
        coarse = rng.integers(0, 255, (5, 6, 3), np.uint8)
        image = Image.fromarray(coarse).resize((70 + i, 66))
        image.save(root / ('deep' if i % 2 else 'deep/er') / f'{i}.png')
    return root


def run(folder, work_dir, theirs=None, **kwargs):
    forget_runs()
    theirs = make(img_size=32) if theirs is None else theirs
    small = mmvitcompress.compress(
        theirs, token_merging=(2,), channels=dict(mlp=0.75)
    )
    before = {n: p.clone() for n, p in small.state_dict().items()}
    options = dict(epochs=8, batch_size=4, lr=5e-4, num_workers=0) | kwargs
    trained = mmvitcompress.distill(
        small, theirs, folder, work_dir=work_dir, **options
    )
    for name, value in small.state_dict().items():
        assert torch.equal(value, before[name])
    return small, trained


def test_features_come_nearer_and_a_stopped_run_goes_on(folder, tmp_path):
    theirs = make(img_size=32)
    small, trained = run(folder, tmp_path / 'a', theirs)
    calibration = Calibration(mmvitcompress.compress(theirs), folder)
    errors = [
        calibration.error(model.backbone)['feature_error']
        for model in (small, trained)
    ]
    assert errors[1] < 0.9 * errors[0]
    assert not trained.training and type(trained) is type(small)
    for part in ('head', 'norm'):
        assert torch.equal(
            getattr(trained, part).weight, getattr(small, part).weight
        )
    mmvitcompress.save(trained, tmp_path / 'small.pth')
    again = mmvitcompress.load(tmp_path / 'small.pth')
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x), trained(x))

    run(folder, tmp_path / 'b')
    (tmp_path / 'b/epoch_8.pth').unlink()
    (tmp_path / 'b/last_checkpoint').write_text(
        str(tmp_path / 'b/epoch_7.pth')
    )
    _, resumed = run(folder, tmp_path / 'b', resume=True)
    for name, value in trained.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_in_bfloat16(folder, tmp_path):
    small, trained = run(
        folder, tmp_path, epochs=1, bfloat16=True, img_size=(16, 32)
    )
    assert next(trained.parameters()).dtype == torch.float
    weights = (m.backbone.blocks[0].mlp.fc1.weight for m in (small, trained))
    assert not torch.equal(*weights)


def test_what_distill_refuses(folder, tmp_path):
    theirs = make()
    small = mmvitcompress.compress(theirs, token_merging=(2,))
    with pytest.raises(ConfigError, match='compress returned'):
        mmvitcompress.distill(theirs, theirs, folder)
    with pytest.raises(ConfigError, match='epochs'):
        mmvitcompress.distill(small, theirs, folder, epochs=0)
    with pytest.raises(ConfigError, match='must be dense'):
        mmvitcompress.distill(small, small, folder, work_dir=tmp_path)
    with pytest.raises(DataError, match='no images'):
        mmvitcompress.distill(
            small, theirs, tmp_path / 'none', work_dir=tmp_path
        )
