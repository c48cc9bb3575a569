"""EViT: what [CLS] attends to stays, the rest becomes one token.

Token reorganization (Liang et al., "Not All Patches are What You Need:
Expediting Vision Transformers via Token Reorganizations", ICLR 2022). In some
blocks, between attention and MLP, the patches that [CLS] attends to most stay;
the others are fused into one token, weighted by that attention, which is a
patch from then on.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mmvitcompress.tokens.method import Attended, TokenMethod
from mmvitcompress.tokens.spec import Counts, Size
from mmvitcompress.tokens.staged import StagedSpec
from mmvitcompress.tokens.state import TokenState, fused_places, take


@dataclass(frozen=True)
class TokenReorganization(StagedSpec):
    """Where and how many patches stay.

    Args:
        layers: Blocks in which the least attended patches are fused, counted
            from 1. Defaults to (4, 7, 10).
        keep_rate: Fraction of the patches that stays in each of them, in
            (0, 1]. Defaults to 0.7.
    """

    key: ClassVar[str] = 'token_reorganization'

    def ungridded_after(self, depth: int) -> int | None:
        return self.layers[0]

    def kept(self, patches: int) -> int:
        """Patches that stay of ``patches``: ⌈ρ·n⌉, or all if only one would
        be fused, with itself."""
        kept = super().kept(patches)
        return patches if patches - kept < 2 else kept

    def between(self, layer: int, size: Size) -> Size:
        kept = self.kept(size.patches)
        if layer not in self.layers or kept == size.patches:
            return size
        return size._replace(patches=kept + 1)

    def macs(self, layer: int, counts: Counts, arch, norm: int) -> int:
        if counts.mlp == counts.attention:
            return 0
        qk = arch.widths(layer)[0]
        tokens = counts.attention + arch.num_prefix_tokens
        # the row of [CLS], and the weighted sum
        return (
            tokens * arch.heads_in(layer) * qk
            + counts.attention * arch.token_dim
        )

    def build(
        self, arch, depth: int, training: bool = False
    ) -> 'AttentiveTokens':
        return AttentiveTokens(self, arch)


class AttentiveTokens(TokenMethod):
    """Keeps what [CLS] attends to, and fuses the rest."""

    def __init__(self, spec: TokenReorganization, arch):
        super().__init__(arch.num_prefix_tokens)
        self.spec = spec
        self.within = frozenset(spec.layers)

    def between(
        self, layer: int, x: Tensor, state: TokenState, attention: Attended
    ) -> tuple[Tensor, TokenState]:
        prefix = self.num_prefix
        patches = x[:, prefix:]
        kept = self.spec.kept(patches.shape[1])
        if kept == patches.shape[1]:
            return x, state
        row = attention.class_row(prefix).mean(1)[:, prefix:]  # (B, n)
        stay, moved = attentive(row, kept)
        weights = row.scatter(1, stay, 0).to(x.dtype)
        fused = weights.unsqueeze(1) @ patches  # (B, 1, D)
        x = torch.cat([x[:, :prefix], take(patches, stay), fused], 1)
        return x, state.reindexed(moved)


@torch.no_grad()
def attentive(attention: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Choose the ``kept`` most attended patches by [CLS] attention (B, n).

    Returns:
        Their places (B, kept), ascending, and for each of the n patches the
        place of its token afterwards (B, n): the last for all that are fused.
    """
    stay = attention.topk(kept, 1).indices.sort(1).values
    return stay, fused_places(stay, attention.shape[1])
