"""Compressed ViTs by name: what a config gets that says no more."""

from typing import ClassVar

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.models.backbones.vit import CompressedViT
from mmvitcompress.registry import MODELS
from mmvitcompress.tokens import PatchSlimming

_MAKE = 'make it by a recipe, such as configs/imagenet/{}_deit_s_in1k.py'
_CONVERT = CompressedViT.how_to_make
_PRUNE = f'{_MAKE} and tools/export_pruned.py'


def _usual_merges(arch: ViTArch) -> tuple[int, ...]:
    """Where our recipes merge, by the width of the model."""
    return {192: (4, 8, 10), 768: (5, 9)}.get(arch.embed_dim, (5, 8))


@MODELS.register_module()
class ATMEDeiT(CompressedViT):
    """DeiT whose tokens are merged; by default where our recipes merge."""

    defaults: ClassVar = {'token_merging': _usual_merges}
    how_to_make = (
        f'{_CONVERT}, in which merges start as means, or {_MAKE}'
    ).format('atme')


@MODELS.register_module()
class CDCPDeiT(CompressedViT):
    """DeiT whose channels were pruned; the checkpoint brings the widths."""

    pruned = True
    how_to_make = _PRUNE.format('cdcp')


@MODELS.register_module()
class CAITDeiT(CompressedViT):
    """DeiT with merged tokens and pruned channels (CAIT)."""

    pruned = True
    defaults: ClassVar = {
        'token_merging': lambda arch: (
            (4, 8) if arch.embed_dim == 768 else (5, 8)
        )
    }
    how_to_make = _PRUNE.format('cait')


@MODELS.register_module()
class LifeSlimDeiT(CompressedViT):
    """DeiT whose patches leave when their lives are over."""

    defaults: ClassVar = {'patch_slimming': PatchSlimming()}
    how_to_make = _PRUNE.format('lifeslim')


@MODELS.register_module()
class ToMeViT(CompressedViT):
    """A plain ViT whose similar tokens are merged (ToMe).

    By default in every block, as many as cost what the merges of neighbours
    before blocks 5 and 8 do.
    """

    defaults: ClassVar = {'token_matching': dict(macs_of=dict(layers=(5, 8)))}
