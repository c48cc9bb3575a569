"""ViTs' names → timm's.

DeiT, DINO to DINOv3, iBOT, MAE, MoCo v3, LV-ViT, CLIP, transformers,
MMPretrain and MMSegmentation.
"""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mmvitcompress.checkpoints.names.eva import eva_to_timm_keys

# tokens and layers that serve pre-training only, or hold what an arch says
DROPPED = ('mask_token', 'masked_embed', 'decoder_', 'pooler.', 'rope_embed.')
DROPPED += ('local_cls_norm.', 'projectors.')
_VARIANTS = (
    # DINOv2's and DINOv3's own names
    (r'^(register|storage)_tokens$', 'reg_token'),
    (r'^blocks\.\d+\.(\d+)\.', r'blocks.\1.'),  # its chunked blocks
    (r'^patch_embed\.conv\.', 'patch_embed.'),  # of LV-ViT's stem
)
_OPENMMLAB = (
    (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
    (r'^layers\.(\d+)\.', r'blocks.\1.'),
    (r'^ln1\.', 'norm.'),
    (r'^ln2\.', 'fc_norm.'),
    (r'\.ln([12])\.', r'.norm\1.'),
    (r'\.attn\.attn\.in_proj_', '.attn.qkv.'),
    (r'\.attn\.attn\.out_proj\.', '.attn.proj.'),
    (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
    (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
    (r'\.(?:attn|ffn)\.gamma([12])\.weight$', r'.ls\1.gamma'),
)
_TRANSFORMERS = (
    (r'^embeddings\.distillation_token$', 'dist_token'),
    (r'^embeddings\.class_embedding$', 'cls_token'),
    (r'^embeddings\.position_embeddings?(\.weight)?$', 'pos_embed'),
    (
        r'^embeddings\.patch_embeddings?\.(projection\.)?(?=\w+$)',
        'patch_embed.proj.',
    ),
    (r'^embeddings\.', ''),
    (r'^((encoder|model)\.)?layers?\.(?=\d)', 'blocks.'),
    (r'^pre_layrnorm\.', 'norm_pre.'),  # as they spell it
    (r'^(post_)?layernorm\.', 'norm.'),
    (r'\.attention\.attention\.([qkv])[a-z]+\.', r'.attn.\1_proj.'),
    (r'\.(attention|self_attn)\.([qkv])_proj\.', r'.attn.\2_proj.'),
    (r'\.attention\.(output\.dense|o_proj)\.', '.attn.proj.'),
    (r'\.self_attn\.out_proj\.', '.attn.proj.'),
    (r'\.layernorm_before\.|\.layer_norm1\.', '.norm1.'),
    (r'\.layernorm_after\.|\.layer_norm2\.', '.norm2.'),
    (r'\.intermediate\.dense\.', '.mlp.fc1.'),
    (r'\.output\.dense\.', '.mlp.fc2.'),
    (r'\.layer_scale([12])\.lambda1$', r'.ls\1.gamma'),
)
_CLIP = (
    (r'^conv1\.', 'patch_embed.proj.'),
    (r'^class_embedding$', 'cls_token'),
    (r'^positional_embedding$', 'pos_embed'),
    (r'^ln_pre\.', 'norm_pre.'),
    (r'^ln_post\.', 'norm.'),
    (r'^transformer\.resblocks\.', 'blocks.'),
    (r'\.ln_([12])\.', r'.norm\1.'),
    (r'\.attn\.in_proj_', '.attn.qkv.'),
    (r'\.attn\.out_proj\.', '.attn.proj.'),
    (r'\.mlp\.c_fc\.', '.mlp.fc1.'),
    (r'\.mlp\.c_proj\.', '.mlp.fc2.'),
    (r'\.ls_([12])\.', r'.ls\1.'),
)


def vit_to_timm_keys(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name a ViT's tensors, without wrappers, as timm does."""
    out, kind = state_dict, naming(state_dict)
    if kind == 'transformers':
        out = _renamed(out, _TRANSFORMERS)
    elif kind == 'clip':
        out = _renamed(out, _CLIP)
        out.pop('proj', None)  # to where images and texts meet
    elif kind == 'openmmlab':
        out = _renamed(out, _OPENMMLAB)
        _add_biases(out)
    if 'register_tokens' in out and 'pos_embed' in out:
        # DINOv2 gives [CLS] a position but its registers none; timm folds it
        # into the token
        position = out['pos_embed']
        out['cls_token'] = out['cls_token'] + position[:, :1]
        out['pos_embed'] = position[:, 1:]
    out = eva_to_timm_keys(_renamed(out, _VARIANTS))
    out = {k: v for k, v in out.items() if not k.startswith(DROPPED)}
    for key in [key for key in out if key.endswith('.qkv.bias_mask')]:
        # of DINOv3's keys, whose bias is never used
        mask, bias = out.pop(key), key.removesuffix('_mask')
        out[bias] = torch.where(mask == 1, out[bias], 0)
    return _in_shape(out)


def _in_shape(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tokens as (1, n, D), the patch projection as a convolution."""
    for key in ('cls_token', 'reg_token', 'pos_embed'):
        if (token := state_dict.get(key)) is not None and token.dim() < 3:
            state_dict[key] = token.reshape(1, -1, token.shape[-1])
    if 'reg_token' in state_dict and not state_dict['reg_token'].shape[1]:
        del state_dict['reg_token']
    key = 'patch_embed.proj.weight'
    weight = state_dict.get(key)
    if weight is not None and weight.dim() == 2:  # SigLIP 2's of any size
        edge = math.isqrt(weight.shape[1] // 3)
        weight = weight.unflatten(1, (edge, edge, -1))
        state_dict[key] = weight.permute(0, 3, 1, 2).contiguous()
    return state_dict


def naming(state_dict: Mapping[str, Tensor]) -> str:
    """Whose names a net's tensors bear: 'transformers', 'clip' (OpenAI's and
    open_clip's), 'openmmlab' or 'timm'."""
    for pattern, kind in (
        (r'embeddings\.patch_embedding', 'transformers'),
        (r'class_embedding$', 'clip'),
        (r'layers\.\d+\.ln1\.|stages\.\d+\..*\.w_msa\.', 'openmmlab'),
    ):
        if any(re.match(pattern, key) for key in state_dict):
            return kind
    return 'timm'


def _renamed(state_dict: Mapping[str, Tensor], names) -> dict[str, Tensor]:
    out = {}
    for key, value in state_dict.items():
        for pattern, name in names:
            key = re.sub(pattern, name, key)
        out[key] = value
    return out


def _add_biases(state_dict: dict[str, Tensor]) -> None:
    """OpenMMLab may build a layer without a bias, which then is zero."""
    layers = [k for k in state_dict if k.endswith('attn.proj.weight')]
    for key in ['patch_embed.proj.weight', *layers]:
        if key in state_dict:
            zeros = state_dict[key].new_zeros(len(state_dict[key]))
            state_dict.setdefault(key.replace('weight', 'bias'), zeros)
