"""What of a ViT of timm our blocks can't compute, in timm's terms."""

from collections.abc import Iterator

from timm.layers import GluMlp, Mlp, PatchEmbed
from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
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
}
_ACTS = dict(GELU='gelu', GELUTanh='gelu_tanh', QuickGELU='quick_gelu')


def unsupported(model: nn.Module) -> Iterator[str]:
    """What of a model our blocks can't compute, in timm's terms.

    A part may be named more than once.
    """
    name = type(model).__name__
    if name in _FEATURES:
        yield f'{_FEATURES[name]} ({name})'
        return
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        yield f'a class of its own ({name})'
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
    norms = [model.norm_pre, model.norm, model.fc_norm]
    norms += [norm for block in model.blocks for norm in norms_of(block)]
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
    if type(attn) is not Attention:
        yield _named(attn, 'attention')
    if not absent(getattr(attn, 'gate', None)):
        yield 'gated attention'
    if is_gated(mlp):
        if mlp.gate_last or not isinstance(mlp.act, nn.SiLU):
            yield 'a gated MLP other than SwiGLU'
    elif type(mlp) is not Mlp:
        yield _named(mlp, 'MLP')
    elif act_of(mlp.act) is None:
        yield f'{mlp.act} as activation'
    if type(block) is not Block:
        yield f'blocks of class {type(block).__name__}'
        return
    for norm in norms_of(block):
        if not isinstance(norm, nn.LayerNorm):
            yield f'{type(norm).__name__} as norm'
        elif norm.bias is None:
            yield 'norms without bias'
    if getattr(attn, 'proj', None) is not None and attn.proj.bias is None:
        yield 'projections without bias (proj_bias=False)'
    if any(part.p for part in _dropouts(attn, mlp)):
        yield 'dropout in blocks (set attn_drop_rate and proj_drop_rate to 0)'


def _unsupported_head(model: VisionTransformer) -> Iterator[str]:
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
    """Whether one layer makes gates and values of an MLP."""
    return type(mlp) is GluMlp


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
