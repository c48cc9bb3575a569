"""In other people's code: training, compiling, importing."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import HistoryBuffer
from timm.optim import param_groups_layer_decay
from timm_vits import compressed, difference, make, slimmed

import mmvitcompress
from mmvitcompress.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_it_trains_and_copies():
    ours = mmvitcompress.compress(
        compressed('deit3').train(), drop_path_rate=0.2
    )
    assert ours.training
    assert ours.backbone.blocks[-1].drop_path.drop_prob == pytest.approx(0.2)
    ours.set_grad_checkpointing()
    twin = copy.deepcopy(ours)
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    groups = param_groups_layer_decay(
        ours, 0.05, ours.no_weight_decay(), layer_decay=0.5
    )
    lr_scales = {
        id(p): group['lr_scale'] for group in groups for p in group['params']
    }
    optimizer = torch.optim.AdamW(groups, 0.01)
    x, y = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    F.cross_entropy(ours(x), y).backward()
    optimizer.step()
    moved = {k for k, v in ours.state_dict().items() if (v != before[k]).any()}
    assert moved == set(before)
    named = dict(ours.named_parameters())
    merge, block = 'backbone.token_merging.1.', 'backbone.blocks.1.'
    scales = [
        {lr_scales[id(p)] for n, p in named.items() if n.startswith(prefix)}
        for prefix in (merge, block, 'head.')
    ]
    assert scales[0] == scales[1] and scales[2] == {1.0}
    decays = {id(p): g['weight_decay'] for g in groups for p in g['params']}
    assert decays[id(named['backbone.pos_embed'])] == 0
    # the copy stayed, and takes the state
    assert all(torch.equal(twin.state_dict()[k], before[k]) for k in before)
    twin.load_state_dict(ours.state_dict())
    assert torch.equal(twin.eval()(x), ours.eval()(x))


@pytest.mark.parametrize('enable', [False, True])
def test_compressing_again_keeps_what_was_set(enable):
    theirs = make('distilled').train()
    theirs.set_grad_checkpointing(enable)
    theirs.set_distilled_training(enable)
    first = mmvitcompress.compress(theirs)
    again = mmvitcompress.compress(first, [2], dict(mlp=0.5))
    for ours in (first, again):
        assert ours.training
        assert ours.backbone.with_cp is enable
        assert ours.distilled_training is enable
    x = torch.randn(2, 3, 64, 64)
    assert isinstance(again(x), tuple) is enable


def test_a_new_classifier():
    ours = mmvitcompress.compress(make('distilled'))
    ours.reset_classifier(9)
    assert ours(torch.randn(1, 3, 64, 64)).shape == (1, 9)
    assert [layer.out_features for layer in ours.get_classifier()] == [9, 9]
    with pytest.raises(ConfigError, match="must be 'token', but got 'avg'"):
        ours.reset_classifier(9, 'avg')
    ours = mmvitcompress.compress(make('dinov2'))
    ours.reset_classifier(3, 'avg')
    assert ours(torch.randn(1, 3, 56, 56)).shape == (1, 3)


@pytest.mark.slow
@torch.no_grad()
def test_compile_and_autocast():
    x = torch.randn(2, 3, 64, 64)
    for model in (compressed(), slimmed()):
        expected = model(x)
        graph = torch.compile(model, backend='aot_eager', fullgraph=True)
        assert difference(graph(x), expected) <= 1e-5
        with torch.autocast('cpu', torch.bfloat16):
            assert model(x).shape == (2, 5)
        assert model(x[:1]).shape == (1, 5)


@pytest.mark.slow
def test_the_demo():
    demo = ROOT / 'demo' / 'compress_your_vit.py'
    done = subprocess.run(
        [sys.executable, demo], check=True, capture_output=True, text=True
    )
    dense, cut, tuned = (
        float(re.search(rf'{name}: ([\d.]+)%', done.stdout)[1])
        for name in ('ViT', 'as cut', 'fine-tuned')
    )
    assert dense > 70 and tuned > 70 and tuned > cut


@pytest.mark.slow
def test_only_what_is_asked_for_is_imported(tmp_path):
    """MMEngine is, by a checkpoint that only MMEngine can have written."""
    state = dict(state_dict=make().state_dict())
    history = dict(loss=HistoryBuffer([1.0], [1]))
    torch.save(state, tmp_path / 'a.pth')
    torch.save(state | dict(message_hub=history), tmp_path / 'b.pth')
    code = (
        'import sys, mmvitcompress; '
        "assert 'mmvitcompress.api' not in sys.modules; "
        "mmvitcompress.load('a.pth'); "
        "assert not {'mmengine', 'mmseg', 'mmdet'} & set(sys.modules); "
        "mmvitcompress.load('b.pth'); "
        "assert not {'mmseg', 'mmdet'} & set(sys.modules)"
    )
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', code]
    subprocess.run(command, check=True, cwd=tmp_path, env=env)
    with pytest.raises(AttributeError, match='no attribute'):
        mmvitcompress.no_such_thing  # noqa: B018
