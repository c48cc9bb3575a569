"""What of a ViT of timm our blocks can't compute, in timm's terms."""

from collections.abc import Iterator

from timm.layers import GluMlp, Mlp, PatchEmbed, SwiGLU
from timm.layers.attention import Attention, AttentionRope
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

# what classes of timm's have that our blocks cannot compute
_FEATURES = {
    'Beit': 'relative position bias',
    'VisionTransformerRelPos': 'relative position bias',
    'VisionTransformerSAM': 'decomposed relative positions and windows',
    'NaFlexVit': 'images as sequences of patches of any size',
    'HybridEmbed': 'a convolutional net before the blocks',
    'ParallelScalingBlock': 'attention and MLP in parallel',
    'ParallelThingsBlock': 'parallel branches in each block',
    'DiffParallelScalingBlock': 'differential attention in parallel to MLPs',
    'DiffAttention': 'differential attention',
    'ResPostBlock': 'norms after attention and MLP',
    'EvaBlockPostNorm': 'norms after attention and MLP',
    'RotaryEmbeddingMixed': 'rotary positions of learned frequencies',
}
_READ = (VisionTransformer, VisionTransformerDistilled, Eva)
_ATTENTIONS = (Attention, AttentionRope, EvaAttention)
_ACTS = dict(GELU='gelu', GELUTanh='gelu_tanh', QuickGELU='quick_gelu')


def unsupported(model: nn.Module) -> Iterator[str]:
    """What of a model our blocks can't compute, in timm's terms.

    A part may be named more than once.
    """
    name = type(model).__name__
    if name in _FEATURES:
        yield f'{_FEATURES[name]} ({name})'
        return
    if type(model) not in _READ:
        yield f'a class of its own ({name})'
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
    norms = [model.norm_pre, model.norm, model.fc_norm]
    norms += [norm for block in model.blocks for norm in norms_of(block)]
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
        yield _named(rope, 'rope')
        return
    attn = model.blocks[0].attn
    if (
        getattr(rope, 'in_pixels', False)
        or getattr(rope, 'min_period', None) is not None
        or getattr(rope, 'normalize_coords', 'separate') != 'separate'
        or rope.dim != attn.proj.in_features // attn.num_heads
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
        yield _named(stem, 'patch_embed')
        return
    if not absent(stem.norm):
        yield 'a norm in patch_embed'
    if len(set(stem.patch_size)) > 1:
        yield f'patches that are no squares {tuple(stem.patch_size)}'
    if stem.img_size is None:
        yield 'no img_size'
    if not absent(model.patch_drop):
        yield 'patch dropout (set patch_drop_rate=0)'
    if model.pos_drop.p:
        yield 'dropout of positions (set pos_drop_rate=0)'


def _unsupported_block(block: nn.Module) -> Iterator[str]:
    if type(block).__name__ in _FEATURES:
        yield _named(block, 'block')
        return
    attn, mlp = getattr(block, 'attn', None), getattr(block, 'mlp', None)
    if type(attn) not in _ATTENTIONS:
        yield _named(attn, 'attention')
    if not absent(getattr(attn, 'gate', None)):
        yield 'gated attention'
    if getattr(attn, 'num_kv_groups', 1) > 1:
        yield 'keys that heads share (num_kv_heads)'
    if is_gated(mlp):
        if getattr(mlp, 'gate_last', False) or not isinstance(
            mlp.act, nn.SiLU
        ):
            yield 'a gated MLP other than SwiGLU'
    elif type(mlp) is not Mlp:
        yield _named(mlp, 'MLP')
    elif act_of(mlp.act) is None:
        yield f'{mlp.act} as activation'
    if type(block) not in (Block, EvaBlock):
        yield f'blocks of class {type(block).__name__}'
        return
    scales = {getattr(block, f'gamma_{i}', None) is None for i in (1, 2)}
    if len(scales) > 1:
        yield 'a layer scale of attention only (attn_only_layer_scale)'
    for norm in norms_of(block):
        if not isinstance(norm, nn.LayerNorm):
            yield f'{type(norm).__name__} as norm'
        elif norm.bias is None:
            yield 'norms without bias'
    if getattr(attn, 'proj', None) is not None and attn.proj.bias is None:
        yield 'projections without bias (proj_bias=False)'
    if any(part.p for part in _dropouts(attn, mlp)):
        yield 'dropout in blocks (set attn_drop_rate and proj_drop_rate to 0)'


def _unsupported_head(model: VisionTransformer | Eva) -> Iterator[str]:
    if model.attn_pool is not None:
        return  # neither pool nor classifier is taken
    for head in (model.head, getattr(model, 'head_dist', None)):
        if not absent(head) and (
            type(head) is not nn.Linear or head.bias is None
        ):
            yield 'a classifier other than one linear layer with bias'
    for norm in (model.norm, model.fc_norm):
        if not absent(norm) and not isinstance(norm, nn.LayerNorm):
            yield f'{type(norm).__name__} as norm'


def absent(module: nn.Module | None) -> bool:
    """Whether timm left a part out."""
    return module is None or isinstance(module, nn.Identity)


def is_gated(mlp: nn.Module) -> bool:
    """Whether an MLP's hidden channels are values times gates."""
    return type(mlp) in (GluMlp, SwiGLU)


def norms_of(block: nn.Module) -> list[nn.Module]:
    """The norms of a block that are there, those of its parts included."""
    places = 'norm1', 'attn.q_norm', 'attn.k_norm', 'attn.norm', 'mlp.norm'
    found = dict(block.named_modules())
    return [found[p] for p in places if not absent(found.get(p))]


def _named(part: nn.Module, role: str) -> str:
    name = type(part).__name__
    return f'{_FEATURES.get(name, f"a class of its own as {role}")} ({name})'


def act_of(act: nn.Module) -> str | None:
    """An activation's name in an arch; None if it has none."""
    name = type(act).__name__
    if name == 'GELU' and getattr(act, 'approximate', 'none') == 'tanh':
        return 'gelu_tanh'
    return _ACTS.get(name)


def _dropouts(*modules: nn.Module) -> list[nn.Module]:
    parts = [part for module in modules for part in module.modules()]
    return [part for part in parts if isinstance(part, nn.Dropout)]
