"""Swins' names → timm's: Microsoft's (patch merging stands at the end of a
stage) and OpenMMLab's (in another order of channels, too)."""

import re
from collections.abc import Mapping

from torch import Tensor

TABLE = 'attn.relative_position_bias_table'
_BUFFERS = ('relative_position_index', 'attn_mask')
_OPENMMLAB_SWIN = (
    (r'^stages\.', 'layers.'),
    (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
    (r'\.attn\.w_msa\.', '.attn.'),
    (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
    (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
)
_OLD_DOWNSAMPLE = 'layers.0.downsample.reduction.weight'


def is_swin(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether tensors are those of a Swin, under any of the known names."""
    table = re.compile(r'(.*\.)?(layers|stages)\.\d+\.blocks\..*_bias_table$')
    return any(map(table.match, state_dict))


def swin_to_timm_keys(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a Swin's tensors to timm's keys.

    Args:
        state_dict: Without wrappers; see
            :func:`~mmvitcompress.checkpoints.names.to_timm_keys`.
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
        for pattern, name in _OPENMMLAB_SWIN:
            key = re.sub(pattern, name, key)
        if '.downsample.' in key:
            # (D, row, column) of nn.Unfold → (column, row, D)
            value = value.unflatten(-1, (-1, 2, 2)).transpose(-3, -1)
            value = value.flatten(-3).contiguous()
        out[key] = value
    return out
