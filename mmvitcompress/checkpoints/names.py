"""Other people's names of tensors → timm's, which are ours.

ViTs of timm, DeiT, DINO, DINOv2, iBOT, MAE, MoCo v3, LV-ViT, transformers,
MMPretrain and MMSegmentation; Swins of timm, Microsoft (patch merging stands
at the end of a stage) and OpenMMLab (in another order of channels, too).
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mmvitcompress.errors import CheckpointError

_STEM = re.compile(
    r'^((?:.*\.)?)(?:patch_embed\.proj(?:ection)?|'
    r'embeddings\.patch_embeddings\.projection)\.weight$'
)
# where there are several nets, the one that is meant to be used
_PREFERRED = ('backbone', 'teacher', 'base_encoder', 'model', 'encoder_q')
_VARIANTS = (
    # DINOv2's own names
    (r'^register_tokens$', 'reg_token'),
    (r'^blocks\.\d+\.(\d+)\.', r'blocks.\1.'),  # its chunked blocks
    # LV-ViT's stem
    (r'^patch_embed\.conv\.', 'patch_embed.'),
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
    (r'^embeddings\.position_embeddings$', 'pos_embed'),
    (r'^embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
    (r'^embeddings\.', ''),
    (r'^encoder\.layer\.', 'blocks.'),
    (r'^layernorm\.', 'norm.'),
    (r'\.attention\.attention\.', '.attn.'),
    (r'\.attention\.output\.dense\.', '.attn.proj.'),
    (r'\.layernorm_before\.', '.norm1.'),
    (r'\.layernorm_after\.', '.norm2.'),
    (r'\.intermediate\.dense\.', '.mlp.fc1.'),
    (r'\.output\.dense\.', '.mlp.fc2.'),
    (r'\.layer_scale([12])\.lambda1$', r'.ls\1.gamma'),
)
_HEAD_NAMES = (
    (r'^head\.layers\.(head|head_dist)\.', r'\1.'),  # MMPretrain's
    (r'^(cls_)?classifier\.', 'head.'),  # of transformers
    (r'^distillation_classifier\.', 'head_dist.'),
)
_CLASSIFIER = re.compile(
    r'(aux_head|head(_dist|\.fc|\.fc_dist|\.fc_aux)?)\.(weight|bias)$'
)
# heads, and tokens that serve pre-training only
HEAD_PREFIXES = ('head', 'aux_head', 'fc_norm', 'return_dense')
_DROPPED = ('mask_token', 'masked_embed', 'decoder_', 'pooler.')
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


def to_timm_keys(
    state_dict: Mapping[str, Tensor], path: str = ''
) -> dict[str, Tensor]:
    """Strip what is wrapped around a net, and name a ViT's tensors as timm.

    Classifiers stay; heads and decoders of pre-training go.

    Raises:
        CheckpointError: If there are several nets, none of which is known to
            be the one to use.
    """
    return vit_to_timm_keys(net_of(state_dict, path))


def net_of(state_dict: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """The tensors of the net among all, and its classifier's."""
    found = (_STEM.match(key) for key in state_dict)
    prefix = _one_of({match[1] for match in found if match}, path)
    outer = re.sub(r'[^.]+\.$', '', prefix)
    out = {}
    for key, value in state_dict.items():
        for start in (prefix, outer):
            name = key[len(start) :]
            for pattern, head in _HEAD_NAMES:
                name = re.sub(pattern, head, name)
            if key.startswith(start) and _CLASSIFIER.match(name):
                out[name] = value
        if key.startswith(prefix):
            name = key[len(prefix) :]
            pretraining = name.startswith(('head', 'classifier', *_DROPPED))
            if not (pretraining or re.match('(cls|distill).*_class', name)):
                out[name] = value
    if any('head.layers.pre_logits' in key for key in state_dict):
        # the classifier reads another layer, not the tokens
        out = {k: v for k, v in out.items() if not k.startswith('head')}
    return out


def _one_of(prefixes: set[str], path: str) -> str:
    if '' in prefixes or not prefixes:
        return ''
    for name in _PREFERRED if len(prefixes) > 1 else ():
        fitting = [p for p in prefixes if name in p.split('.')]
        fitting = [p for p in fitting if p.startswith(name)] or fitting
        if len(fitting) == 1:
            return fitting[0]
    if len(prefixes) > 1:
        raise CheckpointError(
            f'checkpoint {str(path)!r} holds several nets '
            f'({", ".join(sorted(prefixes))}); save the one to use alone'
        )
    return prefixes.pop()


def vit_to_timm_keys(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name a ViT's tensors, without wrappers, as timm does."""
    out, kind = state_dict, naming(state_dict)
    if kind == 'transformers':
        out = _joined(_renamed(out, _TRANSFORMERS))
    elif kind == 'openmmlab':
        out = _renamed(out, _OPENMMLAB)
        _add_biases(out)
    if 'register_tokens' in out and 'pos_embed' in out:
        # DINOv2 gives [CLS] a position but its registers none; timm folds it
        # into the token
        position = out['pos_embed']
        out['cls_token'] = out['cls_token'] + position[:, :1]
        out['pos_embed'] = position[:, 1:]
    out = _renamed(out, _VARIANTS)
    return {k: v for k, v in out.items() if not k.startswith(_DROPPED)}


def naming(state_dict: Mapping[str, Tensor]) -> str:
    """Whose names a net's tensors bear: 'transformers', 'openmmlab' or
    'timm'."""
    for pattern, kind in (
        (r'embeddings\.patch_embeddings\.projection\.', 'transformers'),
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


def _joined(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values as one projection."""
    out = {}
    for key, value in state_dict.items():
        if '.attn.query.' in key:
            parts = [
                state_dict.get(key.replace('query', part), value)
                for part in ('query', 'key', 'value')
            ]
            out[key.replace('query', 'qkv')] = torch.cat(parts)
        elif not re.search(r'\.attn\.(key|value)\.', key):
            out[key] = value
    return out


def _add_biases(state_dict: dict[str, Tensor]) -> None:
    """OpenMMLab may build a layer without a bias, which then is zero."""
    layers = [k for k in state_dict if k.endswith('attn.proj.weight')]
    for key in ['patch_embed.proj.weight', *layers]:
        if key in state_dict:
            zeros = state_dict[key].new_zeros(len(state_dict[key]))
            state_dict.setdefault(key.replace('weight', 'bias'), zeros)


_FOREIGN = (
    (r'encoder\.layers\.\d+\.blocks\.', 'a Swin under names of transformers'),
    (r'.*(cpb_mlp|\.attn\..*logit_scale)', 'a Swin V2'),
    (
        r'(encoder\.)?((blocks|layers?)\.\d+\.att|rel(ative)?_pos).*'
        r'relative_position_bias_table$',
        'a BEiT',
    ),
    (r'.*\.rel_pos_[hw]$', 'a ViT with relative positions, as of SAM'),
    (r'blocks_token_only\.', 'a CaiT'),
    (r'(visual|vision_model)\.', 'a CLIP'),
    (r'(.*\.)?layer1\.0\.conv1\.', 'a ResNet'),
    (r'stages\..*\.(conv_dw|dwconv|depthwise_conv)\.', 'a ConvNeXt'),
)


def refuse_foreign(state_dict: Mapping[str, Tensor], path: str) -> None:
    """Raise CheckpointError for nets that are known to be none of ours."""
    for key in state_dict:
        for pattern, kind in _FOREIGN:
            if re.match(pattern, key):
                raise CheckpointError(
                    f'checkpoint {path!r} is not a plain ViT or Swin, but '
                    f'{kind}: it has {key}; use a ViT, DeiT, DINO, DINOv2, '
                    'MAE or Swin'
                )


def told_by_names(state_dict: Mapping[str, Tensor]) -> dict:
    """Values of an arch that no shape but the names of a file tell."""
    told = {}
    if any('layernorm_before' in key for key in state_dict):
        told['norm_eps'] = 1e-12  # of transformers' ViT and DeiT
    moco = [k for k in state_dict if k.endswith('base_encoder.cls_token')]
    if moco and state_dict[moco[0]].shape[-1] == 384:
        told['num_heads'] = 12  # MoCo v3's ViT-S has more heads than others
    classifies = 'head.fc.weight' in state_dict  # MMPretrain's, as timm's
    if not classifies and any('.attn.w_msa.' in key for key in state_dict):
        told['pad_first'] = True  # of MMSegmentation and MMDetection
    return told


# -- Swins -------------------------------------------------------------------


def is_swin(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether tensors are those of a Swin, under any of the known names."""
    table = re.compile(r'(.*\.)?(layers|stages)\.\d+\.blocks\..*_bias_table$')
    return any(map(table.match, state_dict))


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
        for pattern, name in _OPENMMLAB_SWIN:
            key = re.sub(pattern, name, key)
        if '.downsample.' in key:
            # (D, row, column) of nn.Unfold → (column, row, D)
            value = value.unflatten(-1, (-1, 2, 2)).transpose(-3, -1)
            value = value.flatten(-3).contiguous()
        out[key] = value
    return out
