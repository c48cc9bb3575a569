"""Names and layouts of timm's ``Eva`` → ours: EVA-02, DINOv3, ViTs with rotary
positions; and those of gated MLPs, whoever has them.

Three things aren't only names. Queries, keys and values may be projections of
their own, of which keys have no bias: ours is zero then. Gates and values may
be layers of their own; ours are rows of one. And rotary partners may stand
side by side in a head, where ours are half a head apart: rows of queries and
keys are put into that order, both in the same, which no logit feels.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mmvitcompress.arch.rotary import Rotary
from mmvitcompress.errors import CheckpointError

# what is called otherwise, whoever calls it so
_NAMES = (
    (r'\.gamma_([12])$', r'.ls\1.gamma'),
    (r'\.attn\.inner_attn_ln\.', '.attn.norm.'),
    (r'\.mlp\.ffn_ln\.', '.mlp.norm.'),
    # EVA-02's, DINOv3's; DINOv2's; those of transformers
    (r'\.mlp\.w1\.', '.mlp.fc1_g.'),
    (r'\.mlp\.w2\.', '.mlp.fc1_x.'),
    (r'\.mlp\.gate_proj\.', '.mlp.fc1_g.'),
    (r'\.mlp\.(w12|weights_in)\.', '.mlp.fc1.'),
    (r'\.mlp\.(w3|weights_out|down_proj)\.', '.mlp.fc2.'),
)
_EVA = re.compile(r'blocks\.0\.(gamma_1|attn\.(q_bias|q_proj\.weight))$')
# EVA's own tables, made anew here for each grid
_TABLES = re.compile(r'(.*\.)?rope\.freqs_(cos|sin)$')
LEARNED = 'rope.freqs'
DINOV3 = Rotary()
EVA02 = Rotary('index', 10000.0, reference=16)
ROPE_VIT = Rotary('index', x_first=True)


def eva_to_timm_keys(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name tensors as timm names those of its ``VisionTransformer``."""
    named = {}
    gated = any('.mlp.gate_proj.' in key for key in state_dict)
    values = '.mlp.fc1_x.' if gated else '.mlp.fc1.'
    for key, value in state_dict.items():
        key = key.replace('.mlp.up_proj.', values)
        for pattern, name in _NAMES:
            key = re.sub(pattern, name, key)
        if not _TABLES.match(key):
            named[key] = value
    out = {}
    for key, value in named.items():
        made = _joined(named, key)
        if made is not None:
            out.setdefault(*made)
        elif not re.search(r'\.attn\.([qkv]_(proj|bias)|k_bias)|fc1_x', key):
            out[key] = value
    return out


def _joined(named: Mapping[str, Tensor], key: str) -> tuple | None:
    """Name and value of the one tensor that begins with that of a name."""
    if match := re.fullmatch(r'(.*\.mlp\.)fc1_g\.(weight|bias)', key):
        value = named[f'{match[1]}fc1_x.{match[2]}']
        return f'{match[1]}fc1.{match[2]}', torch.cat([named[key], value])
    if match := re.fullmatch(r'(.*\.attn\.)q_(?:proj\.)?(weight|bias)', key):
        q, start, part = named[key], match[1], match[2]
        names = [f'{start}{name}_' for name in 'kv']
        parts = [
            named.get(f'{name}proj.{part}', named.get(f'{name}{part}'))
            for name in names
        ]
        if part == 'bias':  # keys have none, or one that is always zero
            parts = [torch.zeros_like(q) if x is None else x for x in parts]
        there = [x for x in (q, *parts) if x is not None]
        return f'{start}qkv.{part}', torch.cat(there)
    return None


def told_by_eva(
    state_dict: Mapping[str, Tensor], path: str
) -> tuple[dict, bool]:
    """What the names of an ``Eva`` tell of its rotary positions.

    Args:
        state_dict: Tensors under its names.
        path: Where they came from, for messages.

    Returns:
        Values of the arch; whether rotary partners stand side by side.

    Raises:
        CheckpointError: If positions are turned by learned frequencies.
    """
    if LEARNED in state_dict:
        raise CheckpointError(
            f'checkpoint {path!r} learned the frequencies of its rotary '
            f'positions ({LEARNED}), which are fixed here: use one with fixed '
            'ones, as DINOv3, EVA-02 and axial RoPE-ViTs have'
        )
    if not any(map(_EVA.match, state_dict)):
        return {}, False
    tokens = state_dict.get('reg_token')
    registers = 0 if tokens is None else tokens.shape[1]
    placed, classes = ('pos_embed' in state_dict, 'cls_token' in state_dict)
    if registers == 4 and classes and not placed:
        return dict(rope=DINOV3, norm_eps=1e-5), False
    gated = any('.mlp.fc1_g.' in key for key in state_dict) or (
        len(state_dict['blocks.0.mlp.fc1.weight'])
        > state_dict['blocks.0.mlp.fc2.weight'].shape[1]
    )
    if gated or not (placed or classes):
        return dict(rope=EVA02), True
    if 'blocks.0.attn.qkv.bias' in state_dict:
        # with both, it may as well be a DeiT-III: an arch says otherwise
        return {} if placed and classes else dict(rope=ROPE_VIT), True
    return {}, False  # EVA, which turns nothing


def partners_apart(
    tensors: Mapping[str, Tensor], num_heads: int
) -> dict[str, Tensor]:
    """Put rotary partners, side by side in each head, half a head apart."""
    out = dict(tensors)
    for key, value in tensors.items():
        if '.attn.qkv.' in key:
            out[key] = _apart(value, num_heads)
        elif re.search(r'\.attn\.[qk]_norm\.', key):
            out[key] = value.unflatten(0, (-1, 2)).t().flatten()
    return out


def _apart(qkv: Tensor, num_heads: int) -> Tensor:
    q, k, v = qkv.chunk(3)
    q, k = (
        x.unflatten(0, (num_heads, -1, 2)).transpose(1, 2).flatten(0, 2)
        for x in (q, k)
    )
    return torch.cat([q, k, v])
