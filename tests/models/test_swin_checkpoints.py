"""Checkpoints of Swins: others' converted, loaded strictly."""

import pytest
import torch
from swins import SHAPE, run, saved, small, timm_swin

from mmvitcompress.checkpoints.convert import convert
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.errors import CheckpointError
from mmvitcompress.models import CompressedSwin


def as_microsoft(state_dict):
    """Patch merging after a stage, buffers in the file, a plain head."""
    out = {}
    for key, value in state_dict.items():
        for stage in (1, 2, 3):
            key = key.replace(
                f'layers.{stage}.downsample', f'layers.{stage - 1}.downsample'
            )
        out[key.replace('head.fc.', 'head.')] = value
    out['layers.0.blocks.1.attn_mask'] = torch.zeros(64, 49, 49)
    index = 'layers.0.blocks.1.attn.relative_position_index'
    out[index] = torch.zeros(49, 49, dtype=torch.long)
    return {'model': out}


def test_converting_releases(tmp_path):
    expected = timm_swin(224, num_classes=5).state_dict()
    paths = tmp_path / 'timm.pth', tmp_path / 'microsoft.pth'
    torch.save(expected, paths[0])
    torch.save(as_microsoft(expected), paths[1])
    for path in paths:
        weights = convert(str(path))
        state_dict, arch = weights.tensors, weights.arch
        assert arch == CompressedSwin(SHAPE).arch
        assert state_dict.keys() == expected.keys()
        for key, value in state_dict.items():
            assert torch.equal(value, expected[key]), key


def test_pruned_checkpoint_brings_its_arch(tmp_path):
    model = small('atme', out_norms=False)
    path = tmp_path / 'pruned.safetensors'
    write_checkpoint(path, model.state_dict(), model.arch)
    again = CompressedSwin(
        dict(SHAPE, window_size=4), checkpoint=str(path), out_norms=False
    )
    assert again.arch == model.arch
    x = torch.randn(1, 3, 50, 64)
    for ours, theirs in zip(run(again.eval(), x), run(model, x)):
        assert torch.equal(ours, theirs)


def test_merging_is_added_to_a_dense_checkpoint(tmp_path):
    path = saved(timm_swin(224), tmp_path / 'timm.pth')
    model = CompressedSwin(
        SHAPE, checkpoint=path, token_merging=dict(layers=(3, 4))
    )
    assert model.arch.token_merging.layers == (3, 4)
    fuse = model.token_merging['2'].fuse
    assert torch.equal(fuse.weight, torch.eye(32).repeat(1, 2) / 2)


def test_other_windows_are_refused_or_resized(tmp_path):
    path = saved(timm_swin(224), tmp_path / 'timm.pth')
    with pytest.raises(CheckpointError, match='give window_size=4 beside'):
        CompressedSwin(dict(SHAPE, window_size=4), checkpoint=path)
    model = CompressedSwin(SHAPE, checkpoint=path, window_size=5)
    assert model.arch.window_size == 5
    name = 'layers.1.blocks.0.attn.relative_position_bias_table'
    table = model.get_parameter(name).unflatten(0, (9, 9))
    source = torch.load(path)[name].unflatten(0, (13, 13))
    torch.testing.assert_close(table[4, 4], source[6, 6])  # no offset
    # what rises linearly keeps rising so, nearly, and each head by itself
    ramp = torch.arange(13.0)[:, None, None] * torch.tensor([1.0, 10.0])
    state_dict = {
        **torch.load(path),
        name: ramp.expand(13, 13, 2).flatten(0, 1),
    }
    torch.save(state_dict, path)
    model = CompressedSwin(SHAPE, checkpoint=path, window_size=5)
    table = model.get_parameter(name).unflatten(0, (9, 9))
    steps = table[3:6] - table[2:5]
    assert (steps[..., 0] / (13 / 9) - 1).abs().max() < 0.05
    assert (steps[..., 1] / (130 / 9) - 1).abs().max() < 0.05


@pytest.mark.parametrize(
    'key, message',
    [
        ('layers.1.blocks.1.attn.qkv.bias', 'lacks'),
        ('layers.3.downsample.reduction.weight', 'lacks'),
        ('patch_embed.proj.weight', 'is not a Swin: it lacks'),
    ],
)
def test_loading_is_strict(tmp_path, key, message):
    state_dict = timm_swin(224).state_dict()
    del state_dict[key]
    torch.save(state_dict, tmp_path / 'part.pth')
    with pytest.raises(CheckpointError, match=f'{message}.*{key}'):
        CompressedSwin(SHAPE, checkpoint=str(tmp_path / 'part.pth'))


def test_checkpoints_of_others_are_refused(tmp_path):
    path = saved(timm_swin(224), tmp_path / 'timm.pth')
    with pytest.raises(CheckpointError, match='its embed_dim is 8'):
        CompressedSwin('swin_tiny', checkpoint=path)
    torch.save({'blocks.0.attn.qkv.weight': torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match='is not a Swin'):
        CompressedSwin(SHAPE, checkpoint=path)
    with pytest.raises(
        CheckpointError, match=r'not found; .*: convert a Swin'
    ):
        CompressedSwin(SHAPE, checkpoint='missing.pth')


def test_swins_that_are_not_ours_are_refused(tmp_path):
    path = saved(
        timm_swin(224, window_size=(7, 7, 14, 7)), tmp_path / 's3.pth'
    )
    with pytest.raises(CheckpointError, match='not one square window'):
        convert(path)
    path = saved(small(out_norms=False), tmp_path / 'pruned.pth')
    with pytest.raises(CheckpointError, match='must carry its arch'):
        convert(path)
    path = saved(timm_swin(224), tmp_path / 'timm.pth')
    with pytest.raises(CheckpointError, match='of the family vit'):
        convert(path, 'deit_tiny')
