"""What a ViT of timm is in our terms, or why it can't be put into them."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import timm
import torch
from timm.layers import LayerScale, Mlp, PatchEmbed
from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.compat.hub import hub
from mmvitcompress.compat.versions import installed_version
from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.models.classifier import POOLS

_DATA_KEYS = ('interpolation', 'mean', 'std', 'crop_pct', 'crop_mode')


class Source(NamedTuple):
    """What a :class:`~mmvitcompress.models.classifier.Classifier` is made of.

    Attributes:
        arch: Its shape.
        options: Further arguments of the class.
        state_dict: Tensors under timm's names.
        pretrained_cfg: How images are to be prepared.
    """

    arch: ViTArch
    options: dict
    state_dict: dict[str, Tensor]
    pretrained_cfg: dict


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
            'DeiT-III and DINOv2: learned positions, fused QKV, GELU MLPs, '
            'LayerNorms, a linear classifier'
        )
    options = dict(
        num_classes=getattr(model.head, 'out_features', 0),
        global_pool=model.global_pool,
        fc_norm=isinstance(model.fc_norm, nn.LayerNorm),
        final_norm=isinstance(model.norm, nn.LayerNorm),
        pool_include_prefix=model.pool_include_prefix,
        drop_rate=model.head_drop.p,
        drop_path_rate=_drop_path(model.blocks[-1]),
    )
    data = data_config(model.pretrained_cfg)
    return Source(arch_of(model), options, model.state_dict(), data)


def arch_of(model: VisionTransformer) -> ViTArch:
    """The shape of a supported model."""
    first = model.blocks[0]
    tokens = 'patch' if model.no_embed_class else 'all'
    if model.pos_embed is None:
        tokens = 'none'
    return ViTArch(
        embed_dim=model.embed_dim,
        depth=len(model.blocks),
        num_heads=first.attn.num_heads,
        head_dim=first.attn.head_dim,
        mlp_dims=[block.mlp.fc1.out_features for block in model.blocks],
        patch_size=model.patch_embed.patch_size[0],
        img_size=tuple(model.patch_embed.img_size),
        in_chans=model.patch_embed.proj.in_channels,
        class_token=model.cls_token is not None,
        dist_token=isinstance(model, VisionTransformerDistilled),
        reg_tokens=model.num_reg_tokens,
        pos_embed=tokens,
        layer_scale=isinstance(first.ls1, LayerScale),
        qkv_bias=first.attn.qkv.bias is not None,
        norm_eps=first.norm1.eps,
    )


def data_config(config: dict | None) -> dict:
    """What of a ``pretrained_cfg`` tells how to prepare images."""
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in dict(config or {}).items()
        if key in _DATA_KEYS and value is not None
    }


# -- what we cannot compute -------------------------------------------------


def unsupported(model: nn.Module) -> Iterator[str]:
    """What of a model our blocks can't compute, in timm's terms.

    A part may be named more than once.
    """
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        yield f'a class of its own ({type(model).__name__})'
    if getattr(model, 'rope', None) is not None:
        yield 'rotary position embeddings (rope)'
    if not isinstance(model, VisionTransformer):
        if hasattr(model, 'layers'):
            yield 'stages (for a Swin use mmvitcompress.CompressedSwin)'
        for block in _blocks(model):
            yield from _unsupported_block(block)
        return
    yield from _unsupported_stem(model)
    for block in model.blocks:
        yield from _unsupported_block(block)
    norms = [getattr(block, 'norm1', None) for block in model.blocks]
    norms += model.norm, model.fc_norm
    if len({norm.eps for norm in norms if hasattr(norm, 'eps')}) > 1:
        yield 'norms of different eps'
    yield from _unsupported_head(model)


def _blocks(model: nn.Module) -> list[nn.Module]:
    blocks = getattr(model, 'blocks', ())
    sequence = isinstance(blocks, nn.Sequential | nn.ModuleList)
    return list(blocks) if sequence else []


def _unsupported_stem(model: VisionTransformer) -> Iterator[str]:
    stem = model.patch_embed
    if type(stem) is not PatchEmbed:
        yield f'a {type(stem).__name__} as patch_embed'
        return
    if not _absent(stem.norm):
        yield 'a norm in patch_embed'
    if len(set(stem.patch_size)) > 1:
        yield f'patches that are no squares {tuple(stem.patch_size)}'
    if stem.img_size is None:
        yield 'no img_size'
    if not _absent(model.norm_pre):
        yield 'a norm before the blocks (pre_norm, as CLIP)'
    elif stem.proj.bias is None:
        yield 'a patch projection without bias'
    if not _absent(model.patch_drop):
        yield 'patch dropout (set patch_drop_rate=0)'
    if model.pos_drop.p:
        yield 'dropout of positions (set pos_drop_rate=0)'


def _unsupported_block(block: nn.Module) -> Iterator[str]:
    attn, mlp = getattr(block, 'attn', None), getattr(block, 'mlp', None)
    if type(attn) is not Attention:
        yield f'{type(attn).__name__} as attention'
    for name, reason in (
        ('q_norm', 'normalised queries and keys (qk_norm)'),
        ('norm', 'a norm in attention (scale_attn_norm)'),
        ('gate', 'gated attention'),
    ):
        if not _absent(getattr(attn, name, None)):
            yield reason
    if type(mlp) is not Mlp:
        name = type(mlp).__name__
        gated = 'a gated MLP, such as SwiGLU' if 'glu' in name.lower() else ''
        yield f'{gated} ({name})' if gated else f'{name} as MLP'
    elif not _absent(mlp.norm):
        yield 'a norm in the MLP (scale_mlp_norm)'
    act = getattr(mlp, 'act', None)
    if act is not None and not _is_gelu(act):
        yield f'{act} as activation'
    if type(block) is not Block:
        yield f'blocks of class {type(block).__name__}'
        return
    if not isinstance(block.norm1, nn.LayerNorm):
        yield f'{type(block.norm1).__name__} as norm'
    elif block.norm1.bias is None:
        yield 'norms without bias'
    if getattr(attn, 'proj', None) is not None and attn.proj.bias is None:
        yield 'projections without bias (proj_bias=False)'
    if any(part.p for part in _dropouts(attn, mlp)):
        yield 'dropout in blocks (set attn_drop_rate and proj_drop_rate to 0)'


def _unsupported_head(model: VisionTransformer) -> Iterator[str]:
    if model.attn_pool is not None or model.global_pool not in POOLS:
        yield f'attention pooling (global_pool={model.global_pool!r})'
    for head in (model.head, getattr(model, 'head_dist', None)):
        if not _absent(head) and (
            type(head) is not nn.Linear or head.bias is None
        ):
            yield 'a classifier other than one linear layer with bias'
    for norm in (model.norm, model.fc_norm):
        if not _absent(norm) and not isinstance(norm, nn.LayerNorm):
            yield f'{type(norm).__name__} as norm'


def _absent(module: nn.Module | None) -> bool:
    return module is None or isinstance(module, nn.Identity)


def _is_gelu(act: nn.Module) -> bool:
    name = type(act).__name__
    return name == 'GELU' and getattr(act, 'approximate', 'none') == 'none'


def _dropouts(*modules: nn.Module) -> list[nn.Module]:
    parts = [part for module in modules for part in module.modules()]
    return [part for part in parts if isinstance(part, nn.Dropout)]


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
    image = torch.linspace(-2, 2, arch.in_chans * math.prod(arch.img_size))
    image = image.sin().view(1, arch.in_chans, *arch.img_size).to(like)
    modes = [(part, part.training) for part in theirs.modules()]
    b = theirs.eval().forward_features(image)
    for part, mode in modes:
        part.training = mode
    a, b = ours(image).double(), b.double()
    b = b.flatten(1, -2)  # a Swin's are a map
    error = (a - b).abs().max() / b.abs().max()
    if not error <= _TOLERANCES.get(like.dtype, 5e-2):
        raise ConfigError(
            f'{type(theirs).__name__} computes something of its own: its '
            f'features differ by {error:.2g} of their scale from those of the '
            'same weights here'
        )
