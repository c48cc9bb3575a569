"""Architectures by name."""

import difflib
from pathlib import Path

from mmvitcompress.arch.base import Arch, read_json
from mmvitcompress.arch.swin import SwinArch
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.errors import ConfigError

_SIZES = {
    'tiny': dict(embed_dim=192, depth=12, num_heads=3),
    'small': dict(embed_dim=384, depth=12, num_heads=6),
    'base': dict(embed_dim=768, depth=12, num_heads=12),
    'large': dict(embed_dim=1024, depth=24, num_heads=16),
    'huge': dict(embed_dim=1280, depth=32, num_heads=16),
    'so400m': dict(embed_dim=1152, depth=27, num_heads=16, mlp_dims=4304),
    'giantopt': dict(embed_dim=1536, depth=40, num_heads=16),
    # with gated MLPs
    'giant': dict(
        embed_dim=1536, depth=40, num_heads=24, mlp='swiglu', mlp_dims=4096
    ),
    'small_plus': dict(embed_dim=384, depth=12, num_heads=6, mlp='swiglu'),
    'huge_plus': dict(embed_dim=1280, depth=32, num_heads=20, mlp='swiglu'),
}
_DEIT3 = dict(pos_embed='patch', layer_scale=True)
_DINOV2 = dict(patch_size=14, img_size=518, layer_scale=True)
_REGISTERS = dict(_DINOV2, reg_tokens=4, pos_embed='patch')
_DINOV3 = dict(
    img_size=256,
    reg_tokens=4,
    pos_embed='none',
    layer_scale=True,
    qkv_bias=False,
    norm_eps=1e-5,
    rope={},
)
_EVA02 = dict(
    patch_size=14,
    mlp='swiglu',
    rope=dict(coords='index', temperature=10000.0, reference=16),
)
_CLIP = dict(pre_norm=True, patch_bias=False, norm_eps=1e-5)
_OPENAI = dict(_CLIP, act='quick_gelu')
_SIGLIP = dict(class_token=False, act='gelu_tanh')
_FAMILIES = (
    # family, sizes, what differs from DeiT
    ('deit', ('tiny', 'small', 'base'), {}),
    ('vit', ('tiny', 'small', 'base', 'large'), {}),
    ('vit', ('huge',), dict(patch_size=14)),
    ('mae', ('base', 'large'), {}),
    ('mae', ('huge',), dict(patch_size=14)),
    ('deit_distilled', ('tiny', 'small', 'base'), dict(dist_token=True)),
    ('deit3', ('small', 'base', 'large'), _DEIT3),
    ('deit3', ('huge',), dict(_DEIT3, patch_size=14)),
    ('dinov2', ('small', 'base', 'large', 'giant'), _DINOV2),
    ('dinov2_reg4', ('small', 'base', 'large', 'giant'), _REGISTERS),
    (
        'dinov3',
        ('small', 'small_plus', 'base', 'large', 'huge_plus'),
        _DINOV3,
    ),
    # gates and values have two thirds of others' hidden channels each
    ('eva02', ('tiny',), dict(_EVA02, mlp_dims=512)),
    ('eva02', ('small',), dict(_EVA02, mlp_dims=1024)),
    ('eva02', ('base',), dict(_EVA02, mlp_dims=2048, mlp_norm=True)),
    ('eva02', ('large',), dict(_EVA02, mlp_dims=2730, mlp_norm=True)),
    ('clip', ('base',), _OPENAI),
    ('clip', ('large',), dict(_OPENAI, patch_size=14)),
    ('openclip', ('base',), _CLIP),
    ('openclip', ('large', 'huge'), dict(_CLIP, patch_size=14)),
    ('siglip', ('base',), _SIGLIP),
    ('siglip', ('large',), dict(_SIGLIP, img_size=256)),
    ('siglip', ('so400m',), dict(_SIGLIP, patch_size=14, img_size=378)),
    ('siglip2', ('base',), _SIGLIP),
    ('siglip2', ('large', 'giantopt'), dict(_SIGLIP, img_size=256)),
    ('siglip2', ('so400m',), dict(_SIGLIP, patch_size=14, img_size=378)),
    (
        'lvvit',
        ('small',),
        dict(
            depth=16,
            mlp_dims=1152,
            stem='conv',
            qkv_bias=False,
            skip_scale=2.0,
            norm_eps=1e-5,
        ),
    ),
)

CLASSES: dict[str, type[Arch]] = {
    cls.family: cls for cls in (ViTArch, SwinArch)
}
"""The architectures' classes by the family that they describe."""

ARCHS: dict[str, Arch] = {}
for _family, _sizes, _changes in _FAMILIES:
    for _size in _sizes:
        _arch = ViTArch(**{**_SIZES[_size], **_changes})
        _first, _, _rest = _size.partition('_')
        ARCHS[f'{_family}_{_size}'] = _arch
        if _size not in ('so400m', 'giantopt'):
            ARCHS[f'{_family}_{_first[0]}{_rest}'] = _arch

_SWINS = {
    'tiny': SwinArch(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    'small': SwinArch(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    'base': SwinArch(128, (2, 2, 18, 2), (4, 8, 16, 32)),
}
for _size, _arch in _SWINS.items():
    ARCHS[f'swin_{_size}'] = ARCHS[f'swin_{_size[0]}'] = _arch

# Small enough to learn digits on a laptop: what the demo and the tests use.
ARCHS['vit_micro'] = ViTArch(
    embed_dim=96, depth=8, num_heads=3, patch_size=8, img_size=128
)

# DeiT-Small at the size that CAIT reports (Table II: 2.1 G MACs, 18.4 M
# parameters at 224 px), with the same widths in all blocks. A pruned
# checkpoint brings its own widths; this one serves speed and MAC figures.
_CAIT_SMALL = ARCHS['deit_small'].replace(
    qk_dims=40,
    v_dims=48,
    mlp_dims=1312,
    token_merging=dict(layers=(5, 8)),
)
ARCHS.update(cait_deit_small=_CAIT_SMALL, cait_deit_s=_CAIT_SMALL)


def arch_from_dict(content: dict) -> Arch:
    """An arch from :meth:`Arch.to_dict`'s result or hand-written values.

    A key ``base`` names an arch whose values the others override (see
    :meth:`Arch.replace` for what follows them), ``family`` a class; without
    either, the values are a plain ViT's.

    Raises:
        ConfigError: If the family is unknown or the values are wrong.
    """
    content = dict(content)
    base = content.pop('base', None)
    base = None if base is None else get_arch(base)
    known = ViTArch.family if base is None else base.family
    family = content.pop('family', known)
    if not isinstance(family, str) or family not in CLASSES:
        raise ConfigError(
            f'arch.family must be one of {", ".join(CLASSES)}, but got '
            f'{family!r}'
        )
    if base is None:
        return CLASSES[family].from_dict(content)
    if family != known:
        raise ConfigError(
            f'arch.family must be {known}, as that of its base, but got '
            f'{family!r}'
        )
    base.check_keys(content)
    return base.replace(**content)


def get_arch(arch: str | dict | Arch) -> Arch:
    """An architecture from a name, a dict of values or an arch JSON's path.

    Raises:
        ConfigError: If the name is unknown or the values are wrong.
    """
    if isinstance(arch, Arch):
        return arch
    if isinstance(arch, dict):
        return arch_from_dict(arch)
    hint = ''
    if isinstance(arch, str):
        if arch in ARCHS:
            return ARCHS[arch]
        if Path(arch).suffix == '.json':
            return arch_from_dict(read_json(arch))
        close = difflib.get_close_matches(arch, ARCHS, n=1)
        hint = f'did you mean {close[0]!r}? ' if close else ''
    raise ConfigError(
        f'arch must be a dict, the path of an arch JSON or a known name, but '
        f'got {arch!r}; {hint}known names are {", ".join(ARCHS)}'
    )
