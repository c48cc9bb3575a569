"""Swin checkpoints of others in our terms, which are timm's.

Reads timm's, Microsoft's (patch merging stands at the end of a stage) and
OpenMMLab's (other names, and patch merging in another order of channels).
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmvitcompress.arch.swin import SwinArch
from mmvitcompress.errors import CheckpointError

TABLE = 'attn.relative_position_bias_table'
_BUFFERS = ('relative_position_index', 'attn_mask')
_OPENMMLAB = (
    (r'^stages\.', 'layers.'),
    (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
    (r'\.attn\.w_msa\.', '.attn.'),
    (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
    (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
)
_OLD_DOWNSAMPLE = 'layers.0.downsample.reduction.weight'


def is_swin(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether tensors are those of a Swin, under any of the known names."""
    return any('relative_position_bias_table' in key for key in state_dict)


def swin_to_timm_keys(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a Swin's tensors to timm's keys.

    Args:
        state_dict: Without wrappers; see
            :func:`~mmvitcompress.checkpoints.vit.to_timm_keys`.
    """
    out = {
        key: value
        for key, value in state_dict.items()
        if not key.endswith(_BUFFERS)
    }
    if 'patch_embed.projection.weight' in out:
        out = _from_openmmlab(out)
    if _OLD_DOWNSAMPLE not in out:
        return out
    out = {_moved(key): value for key, value in out.items()}
    return {
        re.sub(r'^head\.(weight|bias)$', r'head.fc.\1', key): value
        for key, value in out.items()
    }


def _moved(key: str) -> str:
    """A patch merging after stage i is one before stage i + 1."""
    return re.sub(
        r'^layers\.(\d+)\.downsample\.',
        lambda match: f'layers.{int(match[1]) + 1}.downsample.',
        key,
    )


def _from_openmmlab(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for key, value in state_dict.items():
        for pattern, name in _OPENMMLAB:
            key = re.sub(pattern, name, key)
        if '.downsample.' in key:
            # (D, row, column) of nn.Unfold → (column, row, D)
            value = value.unflatten(-1, (-1, 2, 2)).transpose(-3, -1)
            value = value.flatten(-3).contiguous()
        out[key] = value
    return out


def infer_swin_arch(
    state_dict: Mapping[str, Tensor],
    arch: SwinArch | None = None,
    path: str | Path = '',
) -> SwinArch:
    """Read a dense Swin's shape off its tensors.

    Args:
        state_dict: Tensors under timm's keys.
        arch: What can't be seen in tensors (norm epsilon, padding, image
            size) comes from here. Defaults to those of Swin itself, at the
            image size where the last stage is one window.
        path: Where the tensors came from, for messages.

    Raises:
        CheckpointError: If these are not the tensors of a dense Swin.
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
            f'checkpoint {str(path)!r} is not a Swin: it lacks {error}'
        ) from None
    window = _window_size(tables, path)
    patch = proj.shape[-1]
    if arch is None:
        hidden = dict(img_size=window * patch * 2 ** (len(depths) - 1))
    else:
        names = ('img_size', 'norm_eps', 'pad_first')
        hidden = {name: getattr(arch, name) for name in names}
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
