"""Widths and masks read off checkpoints."""

import numpy as np
import pytest
import torch

from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.channels import Kinds, attach_compactors, fold, set_kept_
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.checkpoints.widths import unpruned
from mmvitcompress.errors import CheckpointError
from mmvitcompress.visualization import (
    draw_channels,
    draw_heads,
    read_heads,
    read_widths,
)


def mask(*rows):
    """Heads of 8 channels, of which the named ones are masked."""
    kept = np.ones((len(rows), 8), bool)
    for head, gone in enumerate(rows):
        kept[head, list(gone)] = False
    return kept


@pytest.fixture
def pruned(make_vit):
    """Three heads of width 8; most is masked in block 2, and not evenly."""
    vit = make_vit(depth=2)
    compactors = attach_compactors(vit)
    whole = mask((), (), ())
    mlp = np.ones((1, 96), bool)
    mlp[:, :30] = False
    q = mask((0, 1, 2), (0, 1, 2), (0, 1, 2, 3))
    k = mask((0, 1), (0, 1), (0, 1))
    v = mask((5,), (5, 6, 7), (6, 7))
    masks = [Kinds(whole, whole, whole, mlp * 0 + True), Kinds(q, k, v, mlp)]
    set_kept_(compactors, [Kinds(*(m.astype(bool) for m in b)) for b in masks])
    return vit


def save(vit, path):
    state = {f'backbone.{k}': v for k, v in vit.state_dict().items()}
    content = {'state_dict': state, 'meta': {'arch': vit.arch.to_dict()}}
    torch.save(content, path)
    return path


def test_masks_tell_what_will_be_left(pruned, tmp_path):
    widths = read_widths(save(pruned, tmp_path / 'run.pth'))
    assert widths.dense.tolist() == [[8, 8, 96]] * 2
    # Q and K: 0 and 1 are masked in both; V: every head has masked one
    assert widths.kept.tolist() == [[8, 8, 96], [6, 7, 66]]
    assert widths.shares[1].tolist() == [6 / 8, 7 / 8, 66 / 96]


def test_an_exported_checkpoint_tells_the_same(pruned, tmp_path):
    arch, state_dict = fold(pruned)
    write_checkpoint(tmp_path / 'small.pth', state_dict, arch)
    exported = read_widths(tmp_path / 'small.pth')
    run = read_widths(save(pruned, tmp_path / 'run.pth'))
    assert exported.kept.tolist() == run.kept.tolist()
    assert exported.dense.tolist() == run.dense.tolist()


def test_heads_tell_what_has_to_stay(pruned, tmp_path):
    heads = read_heads(save(pruned, tmp_path / 'run.pth'))
    for kind, kept, stuck, removed in (
        ('q', [5, 5, 4], [1, 1, 2], [2, 2, 2]),
        ('k', [6, 6, 6], [0, 0, 0], [2, 2, 2]),
        ('v', [7, 5, 6], [0, 2, 1], [1, 1, 1]),
    ):
        assert heads[kind].kept.tolist() == [[8, 8, 8], kept]
        assert heads[kind].stuck.tolist() == [[0, 0, 0], stuck]
        assert heads[kind].removed.tolist() == [[0, 0, 0], removed]


@pytest.mark.parametrize(
    ('name', 'mlp'), [('deit_tiny', 768), ('lvvit_small', 1152)]
)
def test_what_there_was_before_pruning(name, mlp):
    arch = get_arch(name)
    small = arch.replace(qk_dims=8, v_dims=16, mlp_dims=64)
    assert unpruned(small).mlp_dims == (mlp,) * arch.depth
    assert unpruned(small).qk_dims == (64,) * arch.depth


def test_a_swin_before_pruning():
    arch = get_arch('swin_tiny')
    assert unpruned(arch.replace(qk_dims=8, mlp_dims=64)) == arch


def test_what_tells_nothing_is_refused(make_vit, tmp_path):
    # without the metadata of ours, which tell the arch
    torch.save(dict(make_vit().state_dict()), tmp_path / 'plain.pth')
    with pytest.raises(CheckpointError, match='tells no widths'):
        read_widths(tmp_path / 'plain.pth')
    with pytest.raises(CheckpointError, match='no compactors'):
        read_heads(tmp_path / 'plain.pth')


def test_bars_are_as_high_as_the_shares(pruned, tmp_path):
    path = save(pruned, tmp_path / 'run.pth')
    figure = draw_channels({'run': read_widths(path)})
    bars = [bar.get_height() for bar in figure.axes[0].patches]
    expected = [100, 75, 100, 87.5, 100, 68.75]  # Q/K, V, MLP of both blocks
    assert bars == pytest.approx(expected)
    assert '66' in [text.get_text() for text in figure.axes[0].texts]

    figure = draw_heads({'run': read_heads(path), 'same': read_heads(path)})
    assert len(figure.axes) == 6
    assert '22 of 144 channels are zero' in figure.axes[0].get_title()
    assert '15 of them removed (7 have' in figure.axes[0].get_title()
