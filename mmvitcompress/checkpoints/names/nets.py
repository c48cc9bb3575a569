"""The net among the tensors of a file, and what its names tell."""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from mmvitcompress.checkpoints.names.eva import DINOV3
from mmvitcompress.checkpoints.names.vits import DROPPED, vit_to_timm_keys
from mmvitcompress.errors import CheckpointError

_STEM = re.compile(
    r'^((?:.*\.)?)(?:patch_embed\.proj(?:ection)?|(conv1)|'
    r'embeddings\.patch_embeddings?(?:\.projection)?)\.weight$'
)
# where there are several nets, the one that is meant to be used
_PREFERRED = ('backbone', 'teacher', 'base_encoder', 'model', 'encoder_q')
_HEAD_NAMES = (
    (r'^head\.layers\.(head|head_dist)\.', r'\1.'),  # MMPretrain's
    (r'^(cls_)?classifier\.', 'head.'),  # of transformers
    (r'^distillation_classifier\.', 'head_dist.'),
)
_CLASSIFIER = re.compile(
    r'(aux_head|head(_dist|\.fc|\.fc_dist|\.fc_aux)?)\.(weight|bias)$'
)
HEAD_PREFIXES = ('head', 'aux_head', 'fc_norm', 'return_dense')
_POOL = re.compile(r'^(?:.*\.)?(?:attn_pool\.|head\.probe$)')


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
    prefix = _one_of(set(_stems(state_dict)), path)
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
            pretraining = name.startswith(('head', 'classifier', *DROPPED))
            if not (pretraining or re.match('(cls|distill).*_class', name)):
                out[name] = value
    pooled = has_pool(state_dict)
    if pooled or any('head.layers.pre_logits' in key for key in state_dict):
        # the classifier reads another layer, not the tokens
        out = {k: v for k, v in out.items() if not k.startswith('head')}
    if pooled:
        after = ('attn_pool', 'fc_norm')
        out = {k: v for k, v in out.items() if not k.startswith(after)}
    return out


def has_pool(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a net's classifier reads tokens that attention has pooled."""
    return any(map(_POOL.match, state_dict))


def _stems(state_dict: Mapping[str, Tensor]) -> Iterator[str]:
    """What comes before the names of each net."""
    for match in map(_STEM.match, state_dict):
        # a CLIP's first layer has a name that many nets have
        if match and (
            not match[2] or f'{match[1]}class_embedding' in state_dict
        ):
            yield match[1]


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
    names = '\n'.join(state_dict)
    if re.search(r'^(.*\.)?(pre_layrnorm|ln_pre)\.weight$', names, re.M):
        told['norm_eps'] = 1e-5  # of CLIP
        theirs = 'pre_layrnorm' in names or 'input_resolution' in state_dict
        told['act'] = 'quick_gelu' if theirs else 'gelu'
    elif 'embeddings.position_embedding.weight' in names:
        told['act'] = 'gelu_tanh'  # of SigLIP
    if re.search(r'rope_embed\.periods|storage_tokens', names) or (
        'embeddings.patch_embeddings.weight' in names
    ):
        told |= dict(norm_eps=1e-5, rope=DINOV3)
    classifies = 'head.fc.weight' in state_dict  # MMPretrain's, as timm's
    if not classifies and any('.attn.w_msa.' in key for key in state_dict):
        told['pad_first'] = True  # of MMSegmentation and MMDetection
    return told
