"""Read the shape of a dense net off its tensors."""

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmvitcompress.arch.swin import SwinArch
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import ARCHS
from mmvitcompress.checkpoints.file import refuse_compactors
from mmvitcompress.checkpoints.names import TABLE
from mmvitcompress.errors import CheckpointError

# deeper than it is wide: those of the first timm and of MMPretrain
_KNOWN_HEADS = {(768, 8): 8}


def infer_arch(
    state_dict: Mapping[str, Tensor],
    arch: ViTArch | None = None,
    path: str | Path = '',
    told: Mapping | None = None,
    img_size: tuple[int, int] | None = None,
) -> ViTArch:
    """Read a dense ViT's shape off its tensors.

    Args:
        state_dict: Tensors under timm's keys.
        arch: What can't be seen in tensors (head count, norm epsilon, skip
            scale) comes from here. Defaults to a known arch of the same stem,
            width and depth, else 64 channels to a head.
        path: Where the tensors came from, for messages.
        told: Values that the names of a file tell; they precede ``arch``.
        img_size: Image size (H, W) that the config asks for, in pixels: the
            position embedding may be made for it.

    Raises:
        CheckpointError: If these are not the tensors of a plain ViT, or its
            position embedding may be read in two ways.
    """
    refuse_compactors(state_dict, path)
    try:
        proj = state_dict['patch_embed.proj.weight']
        mlp_dims = _hidden_widths(state_dict)
        gated = len(state_dict['blocks.0.mlp.fc1.weight']) > mlp_dims[0]
        qkv = state_dict['blocks.0.attn.qkv.weight']
    except KeyError as error:
        raise CheckpointError(
            f'checkpoint {str(path)!r} is not a plain ViT: it lacks {error}; '
            "give a ViT's, or use the backbone of what it is"
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
        mlp='swiglu' if gated else 'mlp',
        mlp_norm='blocks.0.mlp.norm.weight' in state_dict,
        attn_norm='blocks.0.attn.norm.weight' in state_dict,
        patch_size=patch,
        in_chans=first.shape[1],
        stem='conv' if conv_stem else 'linear',
        stem_dim=proj.shape[1] if conv_stem else 64,
        layer_scale='blocks.0.ls1.gamma' in state_dict,
        qkv_bias='blocks.0.attn.qkv.bias' in state_dict,
        qk_norm='blocks.0.attn.q_norm.weight' in state_dict,
        patch_bias='patch_embed.proj.bias' in state_dict,
        pre_norm='norm_pre.weight' in state_dict,
        **tokens,
    )
    given, told = arch, dict(told or {})
    rope = told.pop('rope', None)
    if arch is None:
        seen['rope'] = rope
        alike = ('embed_dim', 'depth', 'stem', 'mlp', 'rope')
        known = [
            a
            for a in ARCHS.values()
            if isinstance(a, ViTArch)
            and all(getattr(a, name) == seen[name] for name in alike)
        ]
        heads = _KNOWN_HEADS.get((dim, len(mlp_dims)), max(1, dim // 64))
        head_dim = None if dim % heads == 0 else 64
        # of those that have all of it, the one that has most of the rest
        known.append(ViTArch(dim, seen['depth'], heads, head_dim=head_dim))
        arch = max(
            known,
            key=lambda a: sum(getattr(a, k) == v for k, v in seen.items()),
        )
    for name in ('embed_dim', 'depth'):
        if getattr(arch, name) != seen[name]:
            raise CheckpointError(
                f'checkpoint {str(path)!r} is of another arch: its {name} is '
                f'{seen[name]}, but the config asks for {getattr(arch, name)}'
            )
    hidden = dict(
        num_heads=arch.num_heads,
        head_dim=arch.head_dim,
        norm_eps=arch.norm_eps,
        skip_scale=arch.skip_scale,
        act=arch.act,
    )
    if given is not None:
        told.pop('act', None)  # names hardly tell it
    hidden.update(told)
    # the names of a file tell the usual one of those who give such names
    seen['rope'] = arch.rope if arch.rope is not None else rope
    if hidden['num_heads'] != arch.num_heads:
        hidden['head_dim'] = dim // hidden['num_heads']
    heads, head_dim = hidden['num_heads'], hidden['head_dim']
    if qkv.shape[0] != 3 * heads * head_dim:
        raise CheckpointError(
            f'checkpoint {str(path)!r} has {qkv.shape[0]} rows in '
            f'blocks.0.attn.qkv, which {heads} heads of width {head_dim} do '
            'not explain; a pruned model must carry its arch'
        )
    size = img_size or arch.img_size
    position = dict(pos_embed='none', img_size=size)
    if 'pos_embed' in state_dict:
        length = state_dict['pos_embed'].shape[1]
        prefix = sum(map(int, tokens.values()))
        position = _positions(length, patch, prefix, given, img_size, path)
    return ViTArch(**hidden, **seen, **position)


def _hidden_widths(state_dict: Mapping[str, Tensor]) -> list[int]:
    widths, name = [], 'blocks.{}.mlp.fc2.weight'
    while (layer := state_dict.get(name.format(len(widths)))) is not None:
        widths.append(layer.shape[1])
    if not widths:
        raise KeyError(name.format(0))
    return widths


def _length(token: Tensor | None) -> int:
    return 0 if token is None else token.shape[1]


def _positions(
    length: int,
    patch: int,
    prefix: int,
    arch: ViTArch | None,
    img_size: tuple[int, int] | None,
    path: str | Path,
) -> dict:
    """Which tokens a position embedding covers, and its image size.

    The config's arch says it, if that fits; else it is a square, or what the
    config's image size makes of it, but not if both fit.
    """
    counts = {'all': length - prefix}
    if prefix:
        counts['patch'] = length
    if arch is not None and arch.pos_embed == 'patch':
        counts = dict(reversed(counts.items()))
    for covered, count in counts.items() if arch is not None else ():
        if math.prod(_grid(arch.img_size, patch)) == count:
            return dict(pos_embed=covered, img_size=arch.img_size)
    found = {}
    for covered, count in counts.items():
        if found and arch is not None:
            break  # what it says of the tokens goes before
        edge = math.isqrt(max(count, 0))
        sizes = [] if img_size is None else [img_size]
        if edge:
            sizes.append((edge * patch, edge * patch))
        for size in sizes:
            if math.prod(_grid(size, patch)) == count:
                reading = covered, _grid(size, patch)
                found[reading] = dict(pos_embed=covered, img_size=size)
    if len(found) == 1:
        return found.popitem()[1]
    readings = [f'{h}×{w} patches ({p} tokens)' for p, (h, w) in found]
    what = f'may be {" or ".join(readings)}'
    if not found:
        what = f'are no square grid (with or without {prefix} prefix tokens)'
    raise CheckpointError(
        f'checkpoint {str(path)!r} has {length} position embeddings, which '
        f'{what}; give the image size that it was trained with, in pixels, as '
        'arch=dict(base=…, img_size=(H, W))'
    )


def _grid(size: tuple[int, int], patch: int) -> tuple[int, int]:
    return -(-size[0] // patch), -(-size[1] // patch)


def infer_swin_arch(
    state_dict: Mapping[str, Tensor],
    arch: SwinArch | None = None,
    path: str | Path = '',
    told: Mapping | None = None,
    img_size: tuple[int, int] | None = None,
) -> SwinArch:
    """Read a dense Swin's shape off its tensors; see :func:`infer_arch`.

    Nothing of it is made for an image size: without an arch it is taken to be
    the one where the last stage is one window.
    """
    if arch is not None and not isinstance(arch, SwinArch):
        raise CheckpointError(
            f'checkpoint {str(path)!r} is a Swin, but the arch given for it '
            f'is of the family {arch.family}'
        )
    depths = _depths(state_dict)
    try:
        proj = state_dict['patch_embed.proj.weight']
        tables = [
            state_dict[f'layers.{stage}.blocks.0.{TABLE}']
            for stage in range(len(depths))
        ]
        mlp_dims = [
            len(state_dict[f'layers.{stage}.blocks.{block}.mlp.fc1.weight'])
            for stage, depth in enumerate(depths)
            for block in range(depth)
        ]
        qkv = state_dict['layers.0.blocks.0.attn.qkv.weight']
    except KeyError as error:
        raise CheckpointError(
            f'checkpoint {str(path)!r} is not a Swin: it lacks {error}; '
            "give a Swin's, or use the backbone of what it is"
        ) from None
    window = _window_size(tables, path)
    patch = proj.shape[-1]
    if arch is None:
        hidden = dict(img_size=window * patch * 2 ** (len(depths) - 1))
    else:
        names = ('img_size', 'norm_eps', 'pad_first')
        hidden = {name: getattr(arch, name) for name in names}
    hidden.update(told or {})
    seen = SwinArch(
        embed_dim=len(proj),
        depths=depths,
        num_heads=[table.shape[1] for table in tables],
        mlp_dims=mlp_dims,
        window_size=window,
        patch_size=patch,
        in_chans=proj.shape[1],
        qkv_bias='layers.0.blocks.0.attn.qkv.bias' in state_dict,
        **hidden,
    )
    if len(qkv) != 3 * seen.embed_dim:
        raise CheckpointError(
            f'checkpoint {str(path)!r} has {len(qkv)} rows in layers.0.blocks.'
            f'0.attn.qkv, not three times its width {seen.embed_dim}; a '
            'pruned model must carry its arch'
        )
    return seen


def _depths(state_dict: Mapping[str, Tensor]) -> list[int]:
    depths = []
    while f'layers.{len(depths)}.blocks.0.norm1.weight' in state_dict:
        stage, depth = len(depths), 1
        while f'layers.{stage}.blocks.{depth}.norm1.weight' in state_dict:
            depth += 1
        depths.append(depth)
    return depths or [1]


def _window_size(tables: list[Tensor], path: str | Path) -> int:
    lengths = {len(table) for table in tables}
    edge = math.isqrt(max(lengths))
    if len(lengths) > 1 or edge**2 != max(lengths) or edge % 2 == 0:
        raise CheckpointError(
            f'checkpoint {str(path)!r} has position biases for '
            f'{sorted(lengths)} offsets, which are not one square window for '
            'all stages'
        )
    return (edge + 1) // 2
