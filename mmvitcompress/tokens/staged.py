"""What several token methods have in common: one keep rate at some blocks."""

from dataclasses import dataclass

from mmvitcompress.tokens.placement import nearest_rate
from mmvitcompress.tokens.spec import TokenSpec, keep_ratio, kept_share
from mmvitcompress.utils.checks import check_layers, layer_tuple


@dataclass(frozen=True)
class StagedSpec(TokenSpec):
    """Of what keeps the same share of the patches at some blocks.

    Args:
        layers: These blocks, counted from 1. Defaults to (4, 7, 10).
        keep_rate: Fraction of the patches that stays at each of them, in
            (0, 1]. Defaults to 0.7.
    """

    layers: tuple[int, ...] = (4, 7, 10)
    keep_rate: float = 0.7

    def __post_init__(self):
        layers = layer_tuple(f'{self.key}.layers', self.layers)
        object.__setattr__(self, 'layers', layers)
        ratio = keep_ratio(f'{self.key}.keep_rate', self.keep_rate)
        object.__setattr__(self, '_ratio', ratio)

    @classmethod
    def for_target(
        cls, arch, img_size, reduction_of, target: float, most: float = 1.0
    ) -> 'StagedSpec':
        return nearest_rate(cls, reduction_of, target, most)

    def is_empty(self) -> bool:
        return not self.layers

    def check(self, arch) -> None:
        check_layers(f'{self.key}.layers', self.layers, arch.token_depth)

    def begins(self) -> int:
        return self.layers[0]

    def kept(self, patches: int) -> int:
        """Patches that stay of ``patches`` at one of the layers: ⌈ρ·n⌉."""
        return kept_share(self._ratio, patches)
