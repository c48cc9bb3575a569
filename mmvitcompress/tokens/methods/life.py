"""Life regression: predict once how many layers each patch is worth keeping.

After one block a predictor gives every patch its life. The patches are then
sorted by it, once; from there on dropping patches is a slice: no score, no
gather in later layers.

While training no patch is dropped, since dropping has no gradient. Each patch
is weighted instead, in the attention of every block, by how surely it is
still alive there; the weights carry the gradient to the predicted lives.
"""

import itertools
import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.life_predictor import (
    SHARPNESS,
    FoldedLifePredictor,
    LifePredictor,
    key_bias,
    scores_to_lives,
)
from mmvitcompress.tokens.method import TokenMethod
from mmvitcompress.tokens.placement import nearest_rate
from mmvitcompress.tokens.spec import (
    Counts,
    Size,
    TokenSpec,
    keep_ratio,
    kept_share,
)
from mmvitcompress.tokens.state import TokenState
from mmvitcompress.utils.checks import (
    check_layers,
    check_positive_number,
    layer_tuple,
)


@dataclass(frozen=True)
class PatchSlimming(TokenSpec):
    """When patches leave (life regression).

    Args:
        base_layer: Block after which the lives are predicted, once.
            Defaults to 4.
        layers: Blocks after which patches are dropped. Defaults to (4, 7, 10).
        keep_rate: Fraction of the patches kept at each of these layers, in
            (0, 1]. Defaults to 0.7.
        sharpness: U, in 1/layers: how steeply a patch's weight falls at the
            end of its life while the predictor trains (Table V). Defaults to
            1.5.
    """

    key: ClassVar[str] = 'patch_slimming'
    start: ClassVar[str] = 'the life predictor starts untrained'
    untrained: ClassVar[str] = (
        'has no life predictor, which patch_slimming needs: train one by a '
        'lifeslim config (soft_slimming=True), or leave patch_slimming out'
    )

    base_layer: int = 4
    layers: tuple[int, ...] = (4, 7, 10)
    keep_rate: float = 0.7
    sharpness: float = field(default=SHARPNESS, repr=False)

    def __post_init__(self):
        layers = layer_tuple('patch_slimming.layers', self.layers)
        object.__setattr__(self, 'layers', layers)
        if type(self.base_layer) is not int:
            raise ConfigError(
                'patch_slimming.base_layer must be a whole number, but got '
                f'{self.base_layer!r}'
            )
        ratio = keep_ratio('patch_slimming.keep_rate', self.keep_rate)
        object.__setattr__(self, '_ratio', ratio)
        check_positive_number('patch_slimming.sharpness', self.sharpness)
        if layers and layers[0] < self.base_layer:
            raise ConfigError(
                'patch_slimming.layers must not lie before base_layer '
                f'({self.base_layer}), where lives are predicted, but got '
                f'{layers[0]}'
            )

    @classmethod
    def for_target(
        cls, arch, img_size, reduction_of, target: float, most: float = 1.0
    ) -> 'PatchSlimming':
        return nearest_rate(cls, reduction_of, target, most)

    def parts(self, depth: int) -> dict[str, object]:
        return {'predictor': f'base_layer {self.base_layer}'}

    def check(self, arch) -> None:
        depth = arch.token_depth
        check_layers('patch_slimming.base_layer', [self.base_layer], depth)
        check_layers('patch_slimming.layers', self.layers, depth)
        if not arch.num_prefix_tokens:
            raise ConfigError(
                'patch_slimming scores patches against a prefix token, but '
                'the arch has none: set class_token=True'
            )

    def to_dict(self) -> dict:
        content = super().to_dict()
        if self.sharpness == SHARPNESS:
            del content['sharpness']
        return content

    def ungridded_after(self, depth: int) -> int | None:
        return self.base_layer

    def after(self, layer: int, size: Size) -> Size:
        if layer not in self.layers:
            return size
        return size._replace(patches=self.kept(size.patches))

    def kept(self, patches: int) -> int:
        """Patches that stay of ``patches`` at one slimming layer: ⌈ρ·n⌉."""
        return kept_share(self._ratio, patches)

    def budgets(self, patches: int, depth: int) -> list[int]:
        """Patches in each of the blocks 1..depth: n_t of the paper."""
        return [n.attention for n in self.counts((1, patches), depth)]

    def life_moments(self, patches: int, depth: int) -> tuple[float, float]:
        """Mean μ and standard deviation σ of the lives, in layers.

        As the paper's Eq. 9 and 10, with the square that Eq. 10 lost in
        print: a patch that leaves after block t has lived t layers, one that
        stays to the end ``depth``.
        """
        counts = self.budgets(patches, depth)
        leaving = [n - m for n, m in itertools.pairwise(counts)] + [counts[-1]]
        lives = range(1, depth + 1)
        mean = sum(t * n for t, n in zip(lives, leaving)) / patches
        squares = sum((t - mean) ** 2 * n for t, n in zip(lives, leaving))
        return mean, math.sqrt(squares / patches)

    def macs(self, layer: int, counts: Counts, arch, norm: int) -> int:
        if layer != self.base_layer:
            return 0
        patches, dim = counts.mlp, arch.token_dim
        tokens = patches + arch.num_prefix_tokens
        return (
            tokens * norm * dim + (tokens + patches) * dim**2 + patches * dim
        )

    def params(self, layer: int, arch) -> int:
        dim = arch.token_dim
        return (2 * dim**2 + 2 * dim) * (layer == self.base_layer)

    def build(
        self, arch, depth: int, training: bool = False
    ) -> 'PatchSlimmer | None':
        if training and self.base_layer >= depth:
            raise ConfigError(
                'soft_slimming weights patches in the blocks after '
                f'patch_slimming.base_layer ({self.base_layer}), but only '
                f'{depth} blocks are built: take a later output'
            )
        if self.base_layer > depth:
            return None
        return (SoftPatchSlimmer if training else PatchSlimmer)(arch, self)


class Slimmed(NamedTuple):
    """Patches in the order of decreasing life, of which the last have left.

    Attributes:
        order: (B, h·w), the grid position of each patch in that order.
        places: (B, h·w), its inverse: the place of each grid position.
        departed: Features (B, n, C) of the patches that have left, one entry
            for each slimming layer passed.
    """

    order: Tensor
    places: Tensor
    departed: tuple[Tensor, ...] = ()

    def undo(self, x: Tensor, mode: str, fill: Tensor | None) -> Tensor:
        rest = list(reversed(self.departed))
        if fill is not None:
            missing = self.order.shape[1] - x.shape[1]
            rest = [fill.to(x.dtype).expand(x.shape[0], missing, -1)]
        ordered = torch.cat([x, *rest], 1)
        index = self.places.unsqueeze(-1).expand(-1, -1, ordered.shape[-1])
        return ordered.gather(1, index)

    def apply(self, function) -> 'Slimmed':
        departed = tuple(function(x) for x in self.departed)
        return Slimmed(self.order, self.places, departed)


def sort_patches(
    x: Tensor, scores: Tensor, state: TokenState, num_prefix: int
) -> tuple[Tensor, TokenState]:
    """Put the patches of (B, num_prefix + N, D) in order of falling life.

    Equal scores keep their raster order, the same on every device.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)  # (B, N)
    index = order.unsqueeze(-1).expand(-1, -1, x.shape[-1])
    patches = x[:, num_prefix:].gather(1, index)
    x = torch.cat([x[:, :num_prefix], patches], 1)
    rank = torch.arange(order.shape[1], device=order.device)
    # here once, for all the outputs that are restored later
    places = torch.empty_like(order).scatter_(1, order, rank.expand_as(order))
    return x, state.recording(Slimmed(order, places))


def drop_last(
    x: Tensor, kept: int, state: TokenState, num_prefix: int
) -> tuple[Tensor, TokenState]:
    """Keep the first ``kept`` patches; the others leave with what they are."""
    end = num_prefix + kept
    order, places, departed = last = state.newest(Slimmed)
    record = Slimmed(order, places, (*departed, x[:, end:]))
    return x[:, :end], state.recording(record, last)


class PatchSlimmer(TokenMethod):
    """Patch slimming at inference: one sort, then slices.

    The order of the patches has no gradient, hence the predictor is frozen
    here; it is trained where no patch is dropped (:class:`SoftPatchSlimmer`).
    """

    def __init__(self, arch, spec: PatchSlimming):
        super().__init__(arch.num_prefix_tokens)
        self.spec = spec
        predictor = LifePredictor(arch.token_dim, arch.norm_eps)
        self.predictor = predictor.requires_grad_(False)

    def after(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        prefix = self.num_prefix
        if layer == self.spec.base_layer:
            scores = self.predictor(x.detach(), prefix)
            x, state = sort_patches(x, scores, state, prefix)
        if layer in self.spec.layers:
            kept = self.spec.kept(x.shape[1] - prefix)
            x, state = drop_last(x, kept, state, prefix)
        return x, state

    def fold_(self) -> None:
        self.predictor = FoldedLifePredictor(self.predictor)

    def layer_of(self, name: str) -> int:
        return self.spec.base_layer


class SoftPatchSlimmer(PatchSlimmer):
    """Patch slimming whose predictor can be trained.

    In training mode all patches stay, in raster order, with their lives in
    the state; in evaluation mode they leave as in :class:`PatchSlimmer`, so
    that validation measures the slimmed model. Both have the same parameters.
    """

    def __init__(self, arch, spec: PatchSlimming):
        super().__init__(arch, spec)
        self.depth = arch.token_depth
        self.predictor.requires_grad_(True)

    def bias(self, layer: int, state: TokenState) -> Tensor | None:
        lives = state.notes.get(self.spec.key)
        if lives is None:
            return None
        return key_bias(lives, layer, self.num_prefix, self.spec.sharpness)

    def after(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        if not self.training:
            return super().after(layer, x, state)
        if layer == self.spec.base_layer:
            # lives are a function of x as well: blocks before learn by them
            scores = self.predictor(x, self.num_prefix)
            mean, std = self.spec.life_moments(scores.shape[1], self.depth)
            lives = scores_to_lives(scores, mean, std)
            state = state.noting(self.spec.key, lives)
        return x, state
