"""Life regression of a segmentor: dense, then the predictor, then the rest."""

import pytest
import torch
from mmengine.config import Config

from mmvitcompress.checkpoints.file import read_checkpoint
from mmvitcompress.engine.build import build
from mmvitcompress.engine.hooks import LifeRegressionHook
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens import SoftPatchSlimmer

pytestmark = pytest.mark.slow

DENSE = """
custom_imports = dict(imports=['mmvitcompress'])
train_cfg.update(max_iters=2, val_interval=2)
model['backbone'] = dict(
    type='mmvitcompress.CompressedViT', out_indices=(0, 2),
    arch=dict(embed_dim=24, depth=3, num_heads=3, patch_size=8, img_size=32),
)
model['decode_head'].update(in_channels=24, in_index=1)
"""
SLIM = (
    DENSE
    + """
model['backbone'].update(
    soft_slimming=True,
    patch_slimming=dict(base_layer=1, layers=(1, 2), keep_rate=0.5),
)
train_cfg.update(max_iters=4, val_interval=4)
default_hooks['checkpoint'].update(interval=2)
custom_hooks = [dict(
    type='LifeRegressionHook', predictor_iters=2, hard_slimming={hard}
)]
find_unused_parameters = True
"""
)
PREDICTOR = 'backbone.patch_slimming.predictor.'


def states(work, *steps):
    return [read_checkpoint(work / f'iter_{i}.pth').state_dict for i in steps]


def moved(before, after):
    return {
        name
        for name, value in after.items()
        if name not in before or not torch.equal(value, before[name])
    }


@pytest.mark.parametrize('hard', [True, False])
def test_three_steps_to_a_slimmed_segmentor(
    config, tool, tmp_path, monkeypatch, hard
):
    dense, work = config(DENSE, name='dense'), tmp_path / 'dense'
    assert tool('train', dense, '--work-dir', work)[0] == 0
    start = work / 'iter_2.pth'
    counts = []  # of patches and mode, in the block after the first drop
    forward = SoftPatchSlimmer.after

    def after(self, layer, x, state):
        if layer == 2:
            counts.append((self.training, x.shape[1] - 1))
        return forward(self, layer, x, state)

    monkeypatch.setattr(SoftPatchSlimmer, 'after', after)
    slim, work = config(SLIM.format(hard=hard), name='slim'), tmp_path / 'slim'
    options = ('--cfg-options', f'load_from={start}')
    code, error = tool('train', slim, '--work-dir', work, *options)
    assert code == 0, error
    # 16 patches in the first stage; 8 in the second, as in validation
    second = (False, 8) if hard else (True, 16)
    assert counts[:4] == [(True, 16)] * 2 + [second] * 2
    assert set(counts[4:]) == {(False, 8)}
    (first,) = states(tmp_path / 'dense', 2)
    learned, done = states(work, 2, 4)
    predictor = {name for name in done if name.startswith(PREDICTOR)}
    ours = {name for name in predictor if 'norm' not in name}
    assert ours <= moved(first, learned) <= predictor
    rest = {n for n in done if n.startswith(('backbone.', 'decode_head.conv'))}
    assert moved(learned, done) >= rest - predictor - {'backbone.cls_token'}
    assert not moved(learned, done) & predictor
    # exported and tested by the run's own config
    out = tmp_path / 'whole.pth'
    code, error = tool('export_pruned', slim, work / 'iter_4.pth', out)
    assert code == 0, error
    assert tool('test', slim, out, '--work-dir', tmp_path / 't')[0] == 0
    images, meta = torch.randn(1, 3, 32, 32), [dict(img_shape=(32, 32))]
    with torch.no_grad():
        ours, theirs = (
            build(Config.fromfile(slim), file, 'test').encode_decode(
                images, meta
            )
            for file in (out, work / 'iter_4.pth')
        )
    torch.testing.assert_close(ours, theirs)


def test_a_head_that_knows_nothing_is_warned_of(config, tool, tmp_path):
    slim, work = config(SLIM.format(hard=True)), tmp_path / 'slim'
    code, error = tool('train', slim, '--work-dir', work)
    assert code == 0, error
    log = max(work.glob('*/*.log')).read_text()
    assert 'EncoderDecoder starts from random weights' in log
    assert 'set load_from to the dense model' in log


def test_the_predictor_needs_a_stage_in_which_patches_stay():
    with pytest.raises(ConfigError, match='set predictor_epochs or'):
        LifeRegressionHook(predictor_epochs=None, hard_slimming=True)
