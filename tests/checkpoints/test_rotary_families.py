"""timm's ViTs with rotary positions and gated MLPs, read by names and tensors.

Features must be timm's, at the model's own size and at others.
"""

import pytest
import timm
import torch
from swins import randomised

from mmvitcompress.checkpoints.timm import describe
from mmvitcompress.models import ViT

SMALL = dict(embed_dim=128, depth=3, num_heads=2, num_classes=5)
MODELS = {
    'dinov3': ('vit_small_patch16_dinov3', 16),
    'dinov3_biases': ('vit_small_patch16_dinov3_qkvb', 16),
    'dinov3_plus': ('vit_small_plus_patch16_dinov3', 16),
    'lingbot': ('vit_small_patch16_lingbot', 16),
    'eva02_tiny': ('eva02_tiny_patch14_224', 14),
    'eva02_base': ('eva02_base_patch14_224', 14),
    'eva02_inner': ('eva02_large_patch14_224', 14),
    'sbb_rope': ('vit_medium_patch16_rope_reg1_gap_256', 16),
    'axial': ('vit_small_patch16_rope_224', 16),
    'axial_placed': ('vit_small_patch16_rope_ape_224', 16),
    'dinov2_giant': ('vit_giant_patch14_dinov2', 14),
    'eva': ('eva_giant_patch14_224', 14),
}


def make(name, patches=(4, 4), **changes):
    """A small model in float64, all of whose parameters matter."""
    model, patch = MODELS[name]
    size = tuple(patch * side for side in patches)
    if name == 'eva02_inner':
        changes['scale_attn_inner'] = True
    options = {**SMALL, 'img_size': size, **changes}
    torch.manual_seed(0)
    return randomised(timm.create_model(model, **options)).double().eval()


def image(name, patches=(4, 4), batch=2, short=0):
    patch = MODELS[name][1]
    generator = torch.Generator().manual_seed(1)
    size = [patch * side - short for side in patches]
    x = torch.randn(batch, 3, *size, generator=generator)
    return x.double()


def error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def ours(source):
    model = ViT(source.arch).double().eval()
    names = {'fc_norm.weight': 'norm.weight', 'fc_norm.bias': 'norm.bias'}
    own = model.state_dict()
    tensors = {names.get(k, k): v for k, v in source.state_dict.items()}
    model.load_state_dict({k: v for k, v in tensors.items() if k in own})
    return model


@torch.no_grad()
@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('patches', [(4, 4), (8, 8), (3, 7)])
def test_features_are_timms(name, patches):
    theirs = make(name)
    model = ours(describe(theirs))
    if patches != (4, 4):
        # positions as timm sets them for another size
        theirs.set_input_size(tuple(MODELS[name][1] * s for s in patches))
    x = image(name, patches)
    expected = theirs.forward_intermediates(
        x, return_prefix_tokens=True, intermediates_only=True
    )
    for index, (tokens, _state) in enumerate(model.intermediates(x, range(3))):
        maps, prefix = expected[index], tokens[:, :0]
        if isinstance(maps, tuple):
            maps, prefix = maps
        count = model.num_prefix_tokens
        assert error(tokens[:, count:], maps.flatten(2).mT) <= 1e-9
        if count:
            assert error(tokens[:, :count], prefix) <= 1e-9
