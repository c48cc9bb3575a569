"""Small ViTs of timm, and what the one-call API makes of them."""

import timm
import torch

import mmvitcompress

SMALL = dict(depth=3, embed_dim=64, num_heads=2, num_classes=5)
FAMILIES = {
    'deit': ('deit_tiny_patch16_224', dict(img_size=64)),
    'distilled': ('deit_tiny_distilled_patch16_224', dict(img_size=64)),
    'vit': ('vit_tiny_patch16_224', dict(img_size=(32, 64), in_chans=1)),
    'vit_avg': ('vit_tiny_patch16_224', dict(img_size=64, global_pool='avg')),
    'vit_gap': (
        'vit_base_patch16_224',
        dict(img_size=64, class_token=False, global_pool='avg', fc_norm=False),
    ),
    'deit3': ('deit3_small_patch16_224', dict(img_size=64)),
    'dinov2': ('vit_small_patch14_dinov2', dict(img_size=56, num_classes=0)),
    'dinov2_reg4': (
        'vit_small_patch14_reg4_dinov2',
        dict(img_size=56, num_classes=0),
    ),
    'clip': (
        'vit_base_patch32_clip_quickgelu_224',
        dict(img_size=(64, 96)),
    ),
    'siglip_gap': (
        'vit_base_patch32_siglip_gap_256',
        dict(img_size=64, fc_norm=True),
    ),
    'dinov2_giant': (
        'vit_giant_patch14_reg4_dinov2',
        dict(img_size=56, num_classes=0, mlp_ratio=4),
    ),
    'beit3': ('beit3_base_patch16_224', dict(img_size=64)),
    'qk_norm': ('vit_tiny_patch16_224', dict(img_size=64, qk_norm=True)),
}


def make(family='deit', seed=0, **kwargs):
    """A small model of timm, all of whose parameters matter."""
    name, changes = FAMILIES[family]
    torch.manual_seed(seed)
    model = timm.create_model(name, **{**SMALL, **changes, **kwargs}).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # layer scale starts near zero
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def images(model, batch=2):
    stem = model.patch_embed
    channels = stem.proj.in_channels
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, channels, *stem.img_size, generator=generator)
    return x.to(stem.proj.weight.dtype)


def difference(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def compressed(family='deit'):
    keep = dict(qk=0.75, v=0.5, mlp=0.5)
    whole = dict(qk_norm=['qk'], beit3=['v', 'mlp'])  # what norms see
    for kind in whole.get(family, []):
        del keep[kind]
    merging = dict(layers=(2,), directions='vertical')
    return mmvitcompress.compress(make(family), merging, keep)


def slimmed(family='deit'):
    slimming = dict(base_layer=1, layers=(1, 2), keep_rate=0.5)
    return mmvitcompress.compress(make(family), patch_slimming=slimming)
