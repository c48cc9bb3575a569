"""Other people's checkpoints in our terms.

Our parameter names are timm's, so most of it is stripping wrappers and
reading the shape off the tensors.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import ARCHS
from mmvitcompress.checkpoints.file import refuse_compactors
from mmvitcompress.errors import CheckpointError

_WRAPPERS = ('module.', 'model.', 'backbone.', 'encoder.')
_RENAMED = (
    # DINOv2's own names
    (r'^register_tokens$', 'reg_token'),
    (r'^blocks\.\d+\.(\d+)\.', r'blocks.\1.'),  # its chunked blocks
    # LV-ViT's stem
    (r'^patch_embed\.conv\.', 'patch_embed.'),
)
# heads, and tokens that serve pre-training only
HEAD_PREFIXES = ('head', 'aux_head', 'fc_norm', 'return_dense')
_DROPPED = ('mask_token', 'head.norm')


def to_timm_keys(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip wrappers (``module.``, ``backbone.``…) and rename to timm's keys.

    Handles timm, DeiT, DINOv2, LV-ViT and our own training checkpoints.
    """
    out = dict(state_dict)
    for _ in _WRAPPERS:
        for wrapper in _WRAPPERS:
            inner = {
                key[len(wrapper) :]: value
                for key, value in out.items()
                if key.startswith(wrapper)
            }
            if 'patch_embed.proj.weight' not in out and inner:
                heads = {k: v for k, v in out.items() if k.startswith('head')}
                out = {**heads, **inner}
    if 'register_tokens' in out:
        # DINOv2 gives [CLS] a position but its registers none; timm folds it
        # into the token
        position = out['pos_embed']
        out['cls_token'] = out['cls_token'] + position[:, :1]
        out['pos_embed'] = position[:, 1:]
    for pattern, name in _RENAMED:
        out = {re.sub(pattern, name, key): v for key, v in out.items()}
    return {k: v for k, v in out.items() if not k.startswith(_DROPPED)}


def infer_arch(
    state_dict: Mapping[str, Tensor],
    arch: ViTArch | None = None,
    path: str | Path = '',
) -> ViTArch:
    """Read a dense ViT's shape off its tensors.

    Args:
        state_dict: Tensors under timm's keys.
        arch: What can't be seen in tensors (head count, norm epsilon, skip
            scale) comes from here. Defaults to a known arch of the same stem,
            width and depth, else 64 channels to a head.
        path: Where the tensors came from, for messages.

    Raises:
        CheckpointError: If these are not the tensors of a plain ViT.
    """
    refuse_compactors(state_dict, path)
    try:
        proj = state_dict['patch_embed.proj.weight']
        mlp_dims = _per_block(state_dict, 'mlp.fc1.weight')
        qkv = state_dict['blocks.0.attn.qkv.weight']
    except KeyError as error:
        raise CheckpointError(
            f'checkpoint {str(path)!r} is not a plain ViT: it lacks {error}'
        ) from None
    dim = proj.shape[0]
    conv_stem = 'patch_embed.conv1.weight' in state_dict
    first = state_dict['patch_embed.conv1.weight'] if conv_stem else proj
    patch = proj.shape[-1] * (2 if conv_stem else 1)
    tokens = {
        'class_token': 'cls_token' in state_dict,
        'dist_token': 'dist_token' in state_dict,
        'reg_tokens': _length(state_dict.get('reg_token')),
    }
    seen = dict(
        embed_dim=dim,
        depth=len(mlp_dims),
        mlp_dims=mlp_dims,
        patch_size=patch,
        in_chans=first.shape[1],
        stem='conv' if conv_stem else 'linear',
        stem_dim=proj.shape[1] if conv_stem else 64,
        layer_scale='blocks.0.ls1.gamma' in state_dict,
        qkv_bias='blocks.0.attn.qkv.bias' in state_dict,
        **tokens,
        **_pos_embed(state_dict, patch, sum(map(int, tokens.values())), path),
    )
    if arch is None:
        alike = ('embed_dim', 'depth', 'stem', 'qkv_bias')
        known = (
            a
            for a in ARCHS.values()
            if isinstance(a, ViTArch)
            and all(getattr(a, name) == seen[name] for name in alike)
        )
        heads = max(1, dim // 64)
        arch = next(known, ViTArch(dim, seen['depth'], heads))
    for name in ('embed_dim', 'depth'):
        if getattr(arch, name) != seen[name]:
            raise CheckpointError(
                f'checkpoint {str(path)!r} is of another arch: its {name} is '
                f'{seen[name]}, but the config asks for {getattr(arch, name)}'
            )
    if qkv.shape[0] != 3 * arch.num_heads * arch.head_dim:
        raise CheckpointError(
            f'checkpoint {str(path)!r} has {qkv.shape[0]} rows in '
            f'blocks.0.attn.qkv, which {arch.num_heads} heads of width '
            f'{arch.head_dim} do not explain; a pruned model must carry its '
            'arch'
        )
    return ViTArch(
        num_heads=arch.num_heads,
        head_dim=arch.head_dim,
        norm_eps=arch.norm_eps,
        skip_scale=arch.skip_scale,
        **seen,
    )


def _per_block(state_dict: Mapping[str, Tensor], name: str) -> list[int]:
    widths = []
    while f'blocks.{len(widths)}.{name}' in state_dict:
        widths.append(state_dict[f'blocks.{len(widths)}.{name}'].shape[0])
    if not widths:
        raise KeyError(f'blocks.0.{name}')
    return widths


def _length(token: Tensor | None) -> int:
    return 0 if token is None else token.shape[1]


def _pos_embed(
    state_dict: Mapping[str, Tensor], patch: int, prefix: int, path
) -> dict:
    """Which tokens the position embedding covers, and its image size."""
    if 'pos_embed' not in state_dict:
        return dict(pos_embed='none')
    length = state_dict['pos_embed'].shape[1]
    for covered, count in (('patch', length), ('all', length - prefix)):
        edge = math.isqrt(max(count, 0))
        if edge and edge * edge == count:
            return dict(pos_embed=covered, img_size=edge * patch)
    raise CheckpointError(
        f'checkpoint {str(path)!r} has {length} position embeddings, which '
        f'are no square grid (with or without {prefix} prefix tokens)'
    )
