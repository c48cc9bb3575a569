"""Other people's checkpoints in our terms.

Our parameter names are timm's, so most of it is stripping wrappers and
reading the shape off the tensors.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import ARCHS, get_arch
from mmvitcompress.checkpoints.file import (
    checkpoint_arch,
    load_strict,
    read_checkpoint,
    refuse_compactors,
)
from mmvitcompress.checkpoints.swin import (
    infer_swin_arch,
    is_swin,
    swin_to_timm_keys,
)
from mmvitcompress.errors import CheckpointError
from mmvitcompress.models.swin import Swin
from mmvitcompress.models.vit import ViT

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


def convert(
    source: str, arch: str | dict | Arch | None = None
) -> tuple[dict[str, Tensor], Arch]:
    """Turn a released checkpoint into timm's keys and an arch.

    Args:
        source: A file, or the name of a timm model, which is downloaded.
        arch: What can't be seen in tensors; see :func:`infer_arch` and
            :func:`~mmvitcompress.checkpoints.swin.infer_swin_arch`.

    Returns:
        Tensors (classifier included, if there is one) and their arch. They
        have been loaded strictly; a timm model's features have been compared.

    Raises:
        CheckpointError: If it can't be read or is neither a plain ViT nor a
            Swin.
    """
    hint = None if arch is None else get_arch(arch)
    peer = None
    if Path(source).exists():
        stored, meta = read_checkpoint(source)
        carried = checkpoint_arch(meta, source)
    else:
        peer = _timm_model(source)
        stored, carried = peer.state_dict(), None
    state_dict = to_timm_keys(stored)
    if is_swin(state_dict):
        state_dict = swin_to_timm_keys(state_dict)
        arch = carried or infer_swin_arch(state_dict, hint, source)
        model = Swin(arch).eval()
    else:
        if peer is not None:
            hint = hint or _hint_of(peer, source)
        arch = carried or infer_arch(state_dict, hint, source)
        model = ViT(arch).eval()
    load_strict(model, state_dict, source, may_ignore=HEAD_PREFIXES)
    if peer is not None:
        _compare(model, peer, source)
    return state_dict, arch


def _timm_model(name: str) -> nn.Module:
    if not timm.is_model(name.split('.')[0]):
        raise CheckpointError(
            f'{name!r} is neither a file nor a model that timm '
            f'{timm.__version__} knows'
        )
    try:
        return timm.create_model(name, pretrained=True).eval()
    except Exception as error:
        # whatever the hub's client raises, the remedy is the same
        raise CheckpointError(
            f'weights of timm model {name!r} could not be downloaded '
            f'({type(error).__name__}); fetch them where there is a network '
            'and pass the file instead'
        ) from error


def _hint_of(peer: nn.Module, name: str) -> ViTArch:
    try:
        heads = peer.blocks[0].attn.num_heads
        return ViTArch(
            peer.embed_dim,
            len(peer.blocks),
            heads,
            norm_eps=peer.blocks[0].norm1.eps,
        )
    except (AttributeError, TypeError) as error:
        raise CheckpointError(
            f'timm model {name!r} is not a plain ViT ({error})'
        ) from error


@torch.no_grad()
def _compare(model: ViT | Swin, peer: nn.Module, name: str) -> None:
    """Catch what tensors don't show, such as another activation."""
    image = torch.randn(1, model.arch.in_chans, *model.arch.img_size)
    (ours, _), *_ = model(image)
    theirs = peer.forward_features(image).flatten(1, -2)  # a Swin's is a map
    error = (ours - theirs).abs().max() / theirs.abs().max()
    if not error <= 1e-4:
        raise CheckpointError(
            f'timm model {name!r} is none of ours: its features differ by '
            f'{error:.2g} of their scale from those of the same weights here'
        )
