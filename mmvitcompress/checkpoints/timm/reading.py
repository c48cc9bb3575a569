"""What a ViT of timm is in our terms."""

import math
from collections.abc import Callable
from typing import NamedTuple

import timm
import torch
from timm.layers import LayerScale
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.rotary import Rotary
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.names import eva_to_timm_keys, partners_apart
from mmvitcompress.checkpoints.recognise import POOL_LEFT
from mmvitcompress.checkpoints.timm.unsupported import (
    absent,
    act_of,
    is_gated,
    unsupported,
)
from mmvitcompress.compat.hub import hub
from mmvitcompress.compat.versions import installed_version
from mmvitcompress.errors import CheckpointError, ConfigError

_DATA_KEYS = ('interpolation', 'mean', 'std', 'crop_pct', 'crop_mode')


class Source(NamedTuple):
    """What a :class:`~mmvitcompress.models.classifier.Classifier` is made of.

    Attributes:
        arch: Its shape.
        options: Further arguments of the class.
        state_dict: Tensors under timm's names.
        pretrained_cfg: How images are to be prepared.
        notes: What was left aside, lines for a log.
    """

    arch: ViTArch
    options: dict
    state_dict: dict[str, Tensor]
    pretrained_cfg: dict
    notes: tuple[str, ...] = ()


def create(
    name: str,
    pretrained: bool = True,
    remedy: str = 'pass the file instead',
    **kwargs,
) -> nn.Module:
    """A model of timm by its name, in evaluation mode.

    Args:
        name: Such as 'deit_small_patch16_224.fb_in1k'.
        pretrained: Whether to download its weights. Defaults to True.
        remedy: What to do with a file of them where there is no network.
            Defaults to 'pass the file instead'.
        **kwargs: Further arguments of ``timm.create_model``.

    Raises:
        ConfigError: If timm has no such model.
        CheckpointError: If its weights can't be downloaded.
    """
    if not timm.is_model(name.split('.')[0]):
        raise ConfigError(
            f'timm {installed_version("timm")} has no model {name!r}, nor is '
            'it a file: give a path, or a name of timm.list_models()'
        )
    try:
        with hub():
            return timm.create_model(name, pretrained, **kwargs).eval()
    except Exception as error:
        if not pretrained:
            raise
        # whatever the hub's client raises, the remedy is the same
        reason = str(error).partition('\n')[0]
        raise CheckpointError(
            f'weights of timm model {name!r} could not be downloaded '
            f'({type(error).__name__}: {reason}); fetch them where there is '
            f'a network and {remedy}'
        ) from error


def describe(model: nn.Module) -> Source:
    """Take a model of timm apart; it stays as it is.

    Raises:
        ConfigError: If it has what our blocks can't compute; names all of it.
    """
    found = dict.fromkeys(unsupported(model))  # each of them once
    if found:
        raise ConfigError(
            f'{type(model).__name__} cannot be compressed, since it has '
            f'{"; ".join(found)}. Supported are plain ViTs as DeiT, ViT, '
            'DeiT-III, DINOv2, DINOv3, EVA-02, CLIP and SigLIP: learned or '
            'fixed rotary positions, GELU MLPs or SwiGLU, LayerNorms, a '
            'linear classifier'
        )
    pooled = model.attn_pool is not None
    options = dict(
        num_classes=0 if pooled else getattr(model.head, 'out_features', 0),
        global_pool='' if pooled else model.global_pool,
        fc_norm=isinstance(model.fc_norm, nn.LayerNorm) and not pooled,
        final_norm=isinstance(model.norm, nn.LayerNorm),
        pool_include_prefix=getattr(model, 'pool_include_prefix', False),
        drop_rate=model.head_drop.p,
        drop_path_rate=_drop_path(model.blocks[-1]),
    )
    data, tensors = data_config(model.pretrained_cfg), model.state_dict()
    arch = arch_of(model)
    if pooled:
        after = ('attn_pool.', 'fc_norm.', 'head.')
        tensors = {k: v for k, v in tensors.items() if not k.startswith(after)}
    if isinstance(model, Eva):
        tensors = eva_to_timm_keys(tensors)
        if arch.rope is not None and not _halves(model):
            tensors = partners_apart(tensors, arch.num_heads)
    notes = (POOL_LEFT,) if pooled else ()
    return Source(arch, options, tensors, data, notes)


def arch_of(model: VisionTransformer | Eva) -> ViTArch:
    """The shape of a supported model."""
    first = model.blocks[0]
    attn, mlp, gated = first.attn, first.mlp, is_gated(first.mlp)
    biases = attn.qkv, getattr(attn, 'q_proj', None)
    biased = [x.bias is not None for x in biases if x is not None]
    biased.append(getattr(attn, 'q_bias', None) is not None)
    scales = getattr(first, 'ls1', None), getattr(first, 'gamma_1', None)
    registers = getattr(model, 'reg_token', None)
    patch = model.patch_embed.patch_size[0]
    tokens = 'patch' if model.no_embed_class else 'all'
    if model.pos_embed is None:
        tokens = 'none'
    return ViTArch(
        embed_dim=model.embed_dim,
        depth=len(model.blocks),
        num_heads=attn.num_heads,
        head_dim=attn.proj.in_features // attn.num_heads,
        mlp_dims=[block.mlp.fc2.in_features for block in model.blocks],
        patch_size=patch,
        # what is no whole patch, timm leaves out
        img_size=tuple(n * patch for n in model.patch_embed.grid_size),
        in_chans=model.patch_embed.proj.in_channels,
        class_token=model.cls_token is not None,
        dist_token=isinstance(model, VisionTransformerDistilled),
        reg_tokens=0 if registers is None else registers.shape[1],
        pos_embed=tokens,
        layer_scale=isinstance(scales[0], LayerScale) or scales[1] is not None,
        qkv_bias=any(biased),
        qk_norm=not absent(getattr(attn, 'q_norm', None)),
        act='gelu' if gated else act_of(mlp.act),
        patch_bias=model.patch_embed.proj.bias is not None,
        pre_norm=not absent(model.norm_pre),
        norm_eps=first.norm1.eps,
        rope=_rotary(getattr(model, 'rope', None)),
        mlp='swiglu' if gated else 'mlp',
        mlp_norm=not absent(mlp.norm),
        attn_norm=not absent(getattr(attn, 'norm', None)),
    )


def _rotary(rope: nn.Module | None) -> Rotary | None:
    if rope is None:
        return None
    normalized = type(rope).__name__ == 'RotaryEmbeddingDinoV3'
    return Rotary(
        'normalized' if normalized else 'index',
        float(rope.temperature),
        getattr(rope, 'ref_feat_shape', None),
        float(getattr(rope, 'grid_offset', 0.0)),
        getattr(rope, 'grid_indexing', 'ij') == 'xy',
    )


def _halves(model: Eva) -> bool:
    """Whether rotary partners are half a head apart."""
    return getattr(model.blocks[0].attn, 'rotate_half', False)


def data_config(config: dict | None) -> dict:
    """What of a ``pretrained_cfg`` tells how to prepare images."""
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in dict(config or {}).items()
        if key in _DATA_KEYS and value is not None
    }


def _drop_path(block: nn.Module) -> float:
    return float(getattr(block.drop_path1, 'drop_prob', None) or 0.0)


# -- whether all was seen ---------------------------------------------------

# relative to the largest feature; float32 leaves room for TF32
_TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-3}


@torch.no_grad()
def compare(
    ours: Callable[[Tensor], Tensor], theirs: nn.Module, arch: Arch
) -> None:
    """See that the same weights make the same tokens of an image.

    Catches what :func:`unsupported` doesn't see, such as a patched method.

    Args:
        ours: Images → the last block's tokens (B, N, D), normalised, in
            evaluation mode.
        theirs: timm's model; left in the mode that it is in.
        arch: Their shape.

    Raises:
        ConfigError: If they don't.
    """
    like = next(theirs.parameters())
    if like.is_meta:
        return
    size = theirs.patch_embed.img_size
    image = torch.linspace(-2, 2, arch.in_chans * math.prod(size))
    image = image.sin().view(1, arch.in_chans, *size).to(like)
    modes = [(part, part.training) for part in theirs.modules()]
    b = theirs.eval().forward_features(image)
    for part, mode in modes:
        part.training = mode
    height, width = arch.img_size
    a, b = ours(image[..., :height, :width]).double(), b.double()
    b = b.flatten(1, -2)  # a Swin's are a map
    error = (a - b).abs().max() / b.abs().max()
    if not error <= _TOLERANCES.get(like.dtype, 5e-2):
        raise ConfigError(
            f'{type(theirs).__name__} computes something of its own: its '
            f'features differ by {error:.2g} of their scale from those of the '
            'same weights here'
        )
