"""What the API does not take, and what it says."""

import pytest
import timm
import torch
from timm.layers import GluMlp
from timm_vits import make

import mmvitcompress
from mmvitcompress.errors import CheckpointError, ConfigError


@pytest.mark.parametrize(
    ('name', 'kwargs', 'reasons'),
    [
        ('vit_small_patch16_rope_mixed_224', {}, ['learned frequencies']),
        ('beitv2_base_patch16_224', {}, ['relative position bias']),
        ('vit_tiny_patch16_224', dict(mlp_layer=GluMlp), ['than SwiGLU']),
        ('vit_tiny_patch16_224', dict(act_layer='relu'), ['activation']),
        ('vit_tiny_patch16_224', dict(attn_drop_rate=0.1), ['attn_drop_rate']),
        ('swin_tiny_patch4_window7_224', {}, ['CompressedSwin']),
        ('resnet18', {}, ['ResNet']),
        ('vit_small_patch16_18x2_224', {}, ['ParallelThingsBlock']),
        ('vit_pwee_patch16_reg1_gap_256', {}, ['ParallelScalingBlock']),
    ],
)
def test_what_is_not_supported_is_named(name, kwargs, reasons):
    with torch.device('meta'):
        model = timm.create_model(name, **kwargs)
    with pytest.raises(ConfigError) as caught:
        mmvitcompress.compress(model)
    for reason in reasons:
        assert reason in str(caught.value)


def test_what_only_shows_in_numbers_is_refused():
    theirs = make()
    theirs.blocks[1].attn.scale *= 2
    for block in theirs.blocks:
        block.attn.fused_attn = False
    with pytest.raises(ConfigError, match='differ by'):
        mmvitcompress.compress(theirs)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(token_merging=[4]), r'must lie in 1..3'),
        (dict(token_merging=dict(layer=[1])), "no key 'layer'"),
        (dict(channels=0.5), 'must be a dict'),
        (dict(channels=dict(target=1.5)), 'between 0 and 1'),
        (dict(channels=dict(target=0.99)), 'out of reach'),
        (dict(channels=dict(target=0.3, keep=1)), "no key 'keep'"),
        (dict(channels=dict(qk=1.5)), r'channels.qk .* got 1.5'),
        (dict(channels=dict(mlp_dims=257)), 'must not exceed the 256'),
        (dict(channels=dict(heads=2)), 'must have a target'),
        (
            dict(token_merging=[1], channels=dict(target=0.1)),
            'tokens alone save',
        ),
        (dict(patch_slimming=dict(keep_rate=2)), 'keep_rate must lie'),
        (dict(patch_slimming=dict(keep_rate=0.7)), r'must lie in 1..3'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        mmvitcompress.compress(make(), **arguments)


def test_wrong_models(tmp_path):
    with pytest.raises(ConfigError, match="no model 'no_such_vit'"):
        mmvitcompress.compress('no_such_vit')
    with pytest.raises(ConfigError, match='must be a ViT of timm'):
        mmvitcompress.compress(3)
    with pytest.raises(CheckpointError, match='not found'):
        mmvitcompress.load(tmp_path / 'none.pth')
    with pytest.raises(CheckpointError, match='unwrap'):
        mmvitcompress.save(make(), tmp_path / 'x.pth')
    ours = mmvitcompress.compress(make(), [2])
    with pytest.raises(ConfigError, match='token_merging already'):
        mmvitcompress.compress(ours, [3])
    with pytest.raises(ConfigError, match='last blocks, but got 4'):
        ours.forward_intermediates(torch.zeros(1, 3, 64, 64), 4)
