"""What has to hold between an arch's values, its images and the machine."""

import os
from collections.abc import Sequence
from itertools import permutations

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.spec import Size, TokenSpec

WIDTHS = ('qk_dims', 'v_dims', 'mlp_dims')
"""The values that hold one width for each block."""


def check_fractions(arch) -> None:
    """Raise ConfigError if a plain ViT's channels or patches don't divide."""
    if arch.head_dim is None and arch.embed_dim % arch.num_heads:
        raise ConfigError(
            f'embed_dim must be a multiple of num_heads ({arch.num_heads}) or '
            f'head_dim be given, but got {arch.embed_dim}'
        )
    if arch.stem == 'conv' and arch.patch_size % 2:
        raise ConfigError(
            "stem='conv' halves the image first and needs an even "
            f'patch_size, but got {arch.patch_size}'
        )


def check_memory(arch) -> None:
    """Raise ConfigError if the machine can't hold an arch's weights."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    if 4 * arch.params() > memory:
        sizes = {k: v for k, v in arch.to_dict().items() if type(v) is int}
        sizes |= {name: max(getattr(arch, name)) for name in WIDTHS}
        raise ConfigError(
            f'weights of {4 * arch.params() / 1e9:,.0f} GB are more than '
            f'memory is there ({memory / 1e9:,.0f} GB): lower one of '
            + ', '.join(f'{key}={value}' for key, value in sizes.items())
            + f', img_size={arch.img_size}'
        )


def check_patch(height: int, width: int, patch_size: int) -> None:
    """Raise ConfigError if an image (H, W) is smaller than one patch."""
    if height < patch_size or width < patch_size:
        raise ConfigError(
            f'an image must be at least one patch ({patch_size}×'
            f'{patch_size} px), but got {height}×{width}'
        )


def check_images(shape: Sequence[int], arch) -> None:
    """Raise ConfigError unless a net of an arch takes images of a shape."""
    if len(shape) != 4 or shape[1] != arch.in_chans:
        raise ConfigError(
            f'images must be of the shape (B, {arch.in_chans}, H, W), but got '
            f'{tuple(shape)}'
        )
    check_patch(shape[2], shape[3], arch.patch_size)


def check_reach(specs: Sequence[TokenSpec], depth: int) -> None:
    """Raise ConfigError if a token method reduces a grid before one of
    ``depth`` blocks in which another one has no tokens of the grid."""
    whole = Size(64 * 64, (64, 64))
    for spec, other in permutations(specs, 2):
        for layer in range(1, depth + 1):
            if spec.reach(layer, whole.grid) is None:
                continue
            if other.before(layer, whole) != whole:
                raise ConfigError(
                    f'{other.key} must not reduce tokens before block '
                    f'{layer} of stage 3, whose tokens {spec.key} makes: '
                    'choose a block before or after those'
                )
