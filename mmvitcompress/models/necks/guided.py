"""Merged maps that learn what was where inside their tokens again."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.necks.upsample import merged_map
from mmvitcompress.registry import MODELS
from mmvitcompress.tokens import TokenMap, TokenState, restore
from mmvitcompress.utils.checks import check_extent


@MODELS.register_module()
class UnmergeGuided(BaseModule):
    """Restores every output of a backbone, guided by one that is whole.

    A token that is handed back says the same of all patches that it covers.
    What tells them apart is in the map of a block before the merges, but a
    head that is linear cannot ask it what the token means. Here a small MLP
    looks at both, position by position:

    ``y = restore(x) + W₂·GELU(restore(W₁·LN(x)) + W₀·LN(guide))``

    W₁ works on the merged tokens, of which there are two or four times fewer.
    W₂ starts at 0, so that a new neck restores as ``UnmergeUpsample`` does;
    a dense model that teaches (:class:`TaskTeacherHook`) tells it how its own
    maps look at each position. Three maps of a ViT-S and ``hidden=192`` take
    2 % of its MACs. (Ours, in no paper.)

    Args:
        embed_dim: Channels C of all maps.
        num_ins: Number of maps. Defaults to 4.
        guide: Index of the map that guides, which no merge must have reached;
            it is handed on as it is. Defaults to 0, the first.
        hidden: Width of the MLP. Defaults to 192.
        init_cfg: Must be None; there is nothing to load.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        embed_dim: int,
        num_ins: int = 4,
        guide: int = 0,
        hidden: int = 192,
        init_cfg: None = None,
    ):
        super().__init__()
        for name, value in (
            ('embed_dim', embed_dim),
            ('num_ins', num_ins),
            ('hidden', hidden),
        ):
            check_extent(name, value)
        if type(guide) is not int or not 0 <= guide < num_ins:
            raise ConfigError(
                f'guide must be the index of one of num_ins = {num_ins} maps, '
                f'0..{num_ins - 1}, but got {guide!r}'
            )
        self.embed_dim = embed_dim
        self.guide = guide
        self.norm = nn.LayerNorm(embed_dim)
        self.details = nn.ModuleDict(
            {
                str(index): _Detail(embed_dim, hidden)
                for index in range(num_ins)
                if index != guide
            }
        )

    def forward(
        self, inputs: Sequence[TokenMap | Tensor]
    ) -> tuple[Tensor, ...]:
        """Token maps, or maps (B, C, H, W) that are whole, → maps (B, C, H, W)
        of the full grid."""
        count = len(self.details) + 1
        if len(inputs) != count:
            raise ConfigError(
                f'num_ins must be the number of maps of the backbone, '
                f'{len(inputs)}, but got {count}'
            )
        guide = inputs[self.guide]
        if isinstance(guide, TokenMap) and guide.state.undo:
            raise ConfigError(
                f'map {self.guide} cannot guide, since tokens were merged or '
                'left before it: let out_indices of the backbone begin with a '
                'block before that, and guide be its index'
            )
        guide, _ = merged_map(guide, self.embed_dim)
        detail = self.norm(guide.movedim(1, -1))
        return tuple(
            guide
            if index == self.guide
            else self.details[str(index)](
                *merged_map(level, self.embed_dim), detail
            )
            for index, level in enumerate(inputs)
        )


class _Detail(nn.Module):
    """One map: what its tokens mean at each position that they cover."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.token = nn.Linear(dim, hidden)
        self.guide = nn.Linear(dim, hidden, bias=False)
        self.out = nn.Linear(hidden, dim)
        for layer in (self.token, self.guide):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        for value in (self.token.bias, self.out.weight, self.out.bias):
            nn.init.zeros_(value)

    def forward(self, x: Tensor, state: TokenState, guide: Tensor) -> Tensor:
        """Merged map (B, C, h, w) and normalised guide (B, H, W, C) →
        (B, C, H, W)."""
        tokens = x.flatten(2).transpose(1, 2)
        hidden = restore(self.token(self.norm(tokens)), state)
        hidden = F.gelu(hidden.movedim(1, -1) + self.guide(guide))
        return restore(tokens, state) + self.out(hidden).movedim(-1, 1)
