"""What timm's own code calls on models, beside timm's models."""

import pytest
import torch
from timm.data import resolve_data_config
from timm.models._features import FeatureGetterNet
from timm_vits import compressed, difference, images, make

import mmvitcompress
from mmvitcompress.analysis.macs import count_macs
from mmvitcompress.errors import CheckpointError, ConfigError

FAMILIES = ['deit', 'vit_avg', 'dinov2_reg4']


def pair(family):
    theirs = make(family)
    return theirs, mmvitcompress.compress(theirs)


def close(ours, theirs):
    if isinstance(theirs, torch.Tensor):
        assert difference(ours, theirs) <= 1e-5
        return
    assert len(ours) == len(theirs)
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        ours, theirs = ([d[k] for k in sorted(d)] for d in (ours, theirs))
    for a, b in zip(ours, theirs):
        close(a, b)


@torch.no_grad()
@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize(
    'options',
    [
        dict(output_dict=True),
        dict(output_dict=True, intermediates_only=True, norm=True),
        dict(indices=[0], stop_early=True),
        dict(indices=[-3, 1], return_prefix_tokens=True),
        dict(output_dict=True, return_prefix_tokens=True, output_fmt='NLC'),
    ],
)
def test_forward_intermediates(family, options):
    theirs, ours = pair(family)
    x = images(theirs)
    close(*(m.forward_intermediates(x, **options) for m in (ours, theirs)))


@torch.no_grad()
@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(n=2, reshape=True, norm=True),
        dict(n=[0, 2], return_prefix_tokens=True),
    ],
)
def test_get_intermediate_layers(family, options):
    theirs, ours = pair(family)
    x = images(theirs)
    close(*(m.get_intermediate_layers(x, **options) for m in (ours, theirs)))


@torch.no_grad()
@pytest.mark.parametrize('norm', [False, True])
@pytest.mark.parametrize('indices', [(0, 1), 2, (-2,)])
def test_feature_getter_net(norm, indices):
    theirs, ours = pair('deit')
    x = images(theirs)
    kwargs = dict(out_indices=indices, norm=norm)
    nets = [FeatureGetterNet(m, **kwargs) for m in (ours, theirs)]
    close(*(net(x) for net in nets))
    for what in ('channels', 'reduction'):
        found, expected = (getattr(net.feature_info, what)() for net in nets)
        assert found == expected


@torch.no_grad()
def test_pruning_layers_of_a_merged_model(tmp_path):
    ours = compressed()  # merges before blocks 2 and 3
    x = images(make())
    wanted = ours.forward_intermediates(x, [0, 1], intermediates_only=True)
    assert ours.prune_intermediate_layers([0, 1], prune_norm=True) == [0, 1]
    close(ours.forward_intermediates(x, intermediates_only=True), wanted)
    assert len(ours.backbone.blocks) == 2
    assert count_macs(ours, x[:1]).total == ours.macs()
    names = {name.split('.')[1] for name, _ in ours.named_parameters()}
    assert 'norm' not in names and ours(x).shape == (2, 64)
    merges = {n for n in ours.state_dict() if 'token_merging' in n}
    assert all(name.startswith('backbone.token_merging.1') for name in merges)
    with pytest.raises(CheckpointError, match='2 of 3 are left'):
        mmvitcompress.save(ours, tmp_path / 'x.pth')
    with pytest.raises(ConfigError, match='1 to 2 of the last'):
        ours.prune_intermediate_layers(3)


@torch.no_grad()
@pytest.mark.parametrize('family', FAMILIES)
def test_set_input_size(family):
    theirs, ours = pair(family)
    size = (theirs.patch_embed.patch_size[0] * 6,) * 2
    for model in (theirs, ours):
        model.set_input_size(size)
    x = torch.randn(2, 3, *size)
    assert difference(ours(x), theirs(x)) <= 1e-5
    assert ours.arch.img_size == size
    assert resolve_data_config(model=ours)['input_size'] == (3, *size)
    with pytest.raises(ConfigError, match='stay so, but got patch_size=7'):
        ours.set_input_size(size, patch_size=7)


def test_what_is_said_of_it():
    theirs, ours = pair('deit')
    assert ours.default_cfg is ours.pretrained_cfg
    assert ours.default_cfg['mean'] == theirs.default_cfg['mean']
    for mine, other in zip(ours.feature_info, theirs.feature_info):
        assert mine['module'] == f'backbone.{other["module"]}'
        assert mine['num_chs'] == other['num_chs']
        assert mine['reduction'] == other['reduction']
