"""What of a model of timm our blocks can't compute, in timm's terms."""

from collections.abc import Iterator

from timm.layers import GluMlp, Mlp, PatchEmbed, SwiGLU
from timm.layers.attention import Attention, AttentionRope
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from mmvitcompress.models.classifier import POOLS

CLASSES = (VisionTransformer, VisionTransformerDistilled, Eva)
_ATTENTIONS = (Attention, AttentionRope, EvaAttention)
_MLPS = dict(Mlp='GELU', GluMlp='SiLU', SwiGLU='SiLU')
"""Activations of the MLPs by the names of their classes."""


def unsupported(model: nn.Module) -> Iterator[str]:
    """What of a model our blocks can't compute, in timm's terms.

    A part may be named more than once.
    """
    if type(model) not in CLASSES:
        yield f'a class of its own ({type(model).__name__})'
    yield from _unsupported_rope(model)
    if not isinstance(model, VisionTransformer | Eva):
        if hasattr(model, 'layers'):
            yield 'stages (for a Swin use mmvitcompress.CompressedSwin)'
        for block in _blocks(model):
            yield from _unsupported_block(block)
        return
    yield from _unsupported_stem(model)
    for block in model.blocks:
        yield from _unsupported_block(block)
    norms = [getattr(block, 'norm1', None) for block in model.blocks]
    norms += [
        getattr(getattr(block, part, None), 'norm', None)
        for block in model.blocks
        for part in ('attn', 'mlp')
    ]
    norms += model.norm, model.fc_norm
    if len({norm.eps for norm in norms if hasattr(norm, 'eps')}) > 1:
        yield 'norms of different eps'
    yield from _unsupported_head(model)


def _unsupported_rope(model: nn.Module) -> Iterator[str]:
    rope = getattr(model, 'rope', None)
    if rope is None:
        return
    kind = type(rope).__name__
    known = 'RotaryEmbeddingDinoV3', 'RotaryEmbeddingCat'
    if not isinstance(model, Eva) or kind not in known:
        yield f'rotary positions by a {kind}'
    elif (
        getattr(rope, 'in_pixels', False)
        or getattr(rope, 'min_period', None) is not None
        or getattr(rope, 'normalize_coords', 'separate') != 'separate'
        or rope.dim != model.blocks[0].attn.head_dim
    ):
        yield f'a {kind} other than its authors use'
    elif rope.dim % 4:
        yield f'heads of {rope.dim} channels, turned'


def _blocks(model: nn.Module) -> list[nn.Module]:
    blocks = getattr(model, 'blocks', ())
    sequence = isinstance(blocks, nn.Sequential | nn.ModuleList)
    return list(blocks) if sequence else []


def _unsupported_stem(model: VisionTransformer | Eva) -> Iterator[str]:
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
    if type(attn) not in _ATTENTIONS:
        yield f'{type(attn).__name__} as attention'
    for name, reason in (
        ('q_norm', 'normalised queries and keys (qk_norm)'),
        ('gate', 'gated attention'),
    ):
        if not _absent(getattr(attn, name, None)):
            yield reason
    if getattr(attn, 'num_kv_groups', 1) > 1:
        yield 'keys that heads share (num_kv_heads)'
    name = type(mlp).__name__
    if type(mlp) not in (Mlp, GluMlp, SwiGLU):
        yield f'{name} as MLP'
    elif getattr(mlp, 'gate_last', False):
        yield f'gates after values ({name} with gate_last)'
    for part in (attn, mlp):
        norm = getattr(part, 'norm', None)
        if not _absent(norm) and not isinstance(norm, nn.LayerNorm):
            yield f'{type(norm).__name__} within blocks'
    act = getattr(mlp, 'act', None)
    if act is not None and not _is(act, _MLPS.get(name, 'GELU')):
        yield f'{act} as activation'
    if type(block) not in (Block, EvaBlock):
        yield f'blocks of class {type(block).__name__}'
        return
    scales = [getattr(block, f'gamma_{i}', None) is None for i in (1, 2)]
    if len(set(scales)) > 1:
        yield 'a layer scale of attention only (attn_only_layer_scale)'
    if not isinstance(block.norm1, nn.LayerNorm):
        yield f'{type(block.norm1).__name__} as norm'
    elif block.norm1.bias is None:
        yield 'norms without bias'
    if getattr(attn, 'proj', None) is not None and attn.proj.bias is None:
        yield 'projections without bias (proj_bias=False)'
    if any(part.p for part in _dropouts(attn, mlp)):
        yield 'dropout in blocks (set attn_drop_rate and proj_drop_rate to 0)'


def _unsupported_head(model: VisionTransformer | Eva) -> Iterator[str]:
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


def _is(act: nn.Module, wanted: str) -> bool:
    name, form = type(act).__name__, getattr(act, 'approximate', 'none')
    return name == wanted and form == 'none'


def _dropouts(*modules: nn.Module) -> list[nn.Module]:
    parts = [part for module in modules for part in module.modules()]
    return [part for part in parts if isinstance(part, nn.Dropout)]
