"""What to reduce, where, and by how much: validated, without tensors.

The two specifications here are the token half of a
:class:`~mmvitcompress.arch.vit.ViTArch`. Blocks are counted from 1, as in both
papers.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction

from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.checks import (
    check_flag,
    check_layers,
    is_number,
    layer_tuple,
)

Grid = tuple[int, int]
"""Height and width of a token grid, in tokens."""

STEPS: dict[str, Grid] = {
    'horizontal': (1, 2),
    'vertical': (2, 1),
    'symmetric': (2, 2),
    'diagonal': (2, 1),
}
"""By how much each direction shrinks the grid's height and width."""


def merged_grid(grid: Grid, direction: str) -> Grid:
    """The grid after one merge; odd sizes are rounded up.

    A diagonal merge halves the height: of every 2x2 block it keeps one token
    per diagonal.
    """
    step_h, step_w = STEPS[direction]
    return -(-grid[0] // step_h), -(-grid[1] // step_w)


def fan_in(direction: str) -> int:
    """How many tokens one merge fuses into one."""
    step_h, step_w = STEPS[direction]
    return step_h * step_w


def merge_factors(directions: Sequence[str]) -> Grid:
    """By how much a sequence of merges shrank height and width."""
    height = width = 1
    for direction in directions:
        step_h, step_w = STEPS[direction]
        height, width = height * step_h, width * step_w
    return height, width


@dataclass(frozen=True)
class TokenMerging:
    """Where and how neighbouring tokens are merged (ATME, CAIT III-B).

    Args:
        layers: Blocks before whose attention a merge takes place.
        directions: 'alternate', one direction for all layers, or one for each
            layer: 'horizontal', 'vertical', 'symmetric' (2x2 blocks) or
            'diagonal'. Defaults to 'alternate'.
        first: The direction that 'alternate' starts with, 'horizontal' or
            'vertical'. Once that is resolved, ``directions`` say it all: of
            two specs that merge alike, ``first`` makes no difference, and it
            isn't saved. Defaults to 'horizontal'.
        conv: Whether a depthwise 3x3 convolution follows each fuse
            (ATME+Conv, Table XIII). Defaults to False.
    """

    layers: tuple[int, ...]
    directions: tuple[str, ...] | str = 'alternate'
    first: str = field(default='horizontal', compare=False, repr=False)
    conv: bool = False

    def __post_init__(self):
        layers = layer_tuple('token_merging.layers', self.layers)
        object.__setattr__(self, 'layers', layers)
        object.__setattr__(self, 'directions', self._resolve(len(layers)))
        check_flag('token_merging.conv', self.conv)

    def _resolve(self, count: int) -> tuple[str, ...]:
        directions = self.directions
        pair = ('horizontal', 'vertical')
        if self.first not in pair:
            raise ConfigError(
                "token_merging.first must be 'horizontal' or 'vertical', but "
                f'got {self.first!r}'
            )
        if directions == 'alternate':
            start = pair.index(self.first)
            return tuple(pair[(start + i) % 2] for i in range(count))
        if isinstance(directions, str) or not isinstance(directions, Iterable):
            directions = (directions,) * count
        for direction in directions:
            if direction not in tuple(STEPS):
                raise ConfigError(
                    "token_merging.directions must be 'alternate' or of "
                    f'{", ".join(STEPS)}, but got {direction!r}'
                )
        if len(directions) != count:
            raise ConfigError(
                f'token_merging.directions must name one direction for each '
                f'of {count} layers, but got {len(directions)}'
            )
        return tuple(directions)

    def validate(self, depth: int) -> None:
        """Raise ConfigError if a layer lies outside of 1..depth."""
        check_layers('token_merging.layers', self.layers, depth)

    def direction_at(self, layer: int) -> str | None:
        """The merge before block ``layer``, or None."""
        if layer not in self.layers:
            return None
        return self.directions[self.layers.index(layer)]

    def to_dict(self) -> dict:
        content = asdict(self)
        del content['first']  # directions are resolved
        return {
            **content,
            'layers': list(self.layers),
            'directions': list(self.directions),
        }


@dataclass(frozen=True)
class PatchSlimming:
    """When patches leave (life regression).

    Args:
        base_layer: Block after which the lives are predicted, once.
            Defaults to 4.
        layers: Blocks after which patches are dropped. Defaults to (4, 7, 10).
        keep_rate: Fraction of the patches kept at each of these layers, in
            (0, 1]. Defaults to 0.7.
    """

    base_layer: int = 4
    layers: tuple[int, ...] = (4, 7, 10)
    keep_rate: float = 0.7

    def __post_init__(self):
        layers = layer_tuple('patch_slimming.layers', self.layers)
        object.__setattr__(self, 'layers', layers)
        if type(self.base_layer) is not int:
            raise ConfigError(
                'patch_slimming.base_layer must be a whole number, but got '
                f'{self.base_layer!r}'
            )
        if not is_number(self.keep_rate) or not 0 < self.keep_rate <= 1:
            raise ConfigError(
                'patch_slimming.keep_rate must lie in (0, 1], but got '
                f'{self.keep_rate!r}'
            )
        # 0.55 is meant as 11/20, though as a float it lies a little above
        ratio = Fraction(self.keep_rate).limit_denominator(10**6)
        ratio = max(ratio, Fraction(1, 10**6))  # never none at all
        object.__setattr__(self, '_ratio', ratio.as_integer_ratio())
        if layers and layers[0] < self.base_layer:
            raise ConfigError(
                'patch_slimming.layers must not lie before base_layer '
                f'({self.base_layer}), where lives are predicted, but got '
                f'{layers[0]}'
            )

    def validate(self, depth: int) -> None:
        """Raise ConfigError if a layer lies outside of 1..depth."""
        check_layers('patch_slimming.base_layer', [self.base_layer], depth)
        check_layers('patch_slimming.layers', self.layers, depth)

    def kept(self, patches: int) -> int:
        """Patches that stay of ``patches`` at one slimming layer: ⌈ρ·n⌉."""
        # whole numbers: exact, and no obstacle where ``patches`` is a symbol
        kept, of = self._ratio
        return -(-patches * kept // of)

    def budgets(self, patches: int, depth: int) -> list[int]:
        """Patches in each of the blocks 1..depth: n_t of the paper."""
        counts = []
        for layer in range(1, depth + 1):
            counts.append(patches)
            if layer in self.layers:
                patches = self.kept(patches)
        return counts

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
        variance = (
            sum((t - mean) ** 2 * n for t, n in zip(lives, leaving)) / patches
        )
        return mean, math.sqrt(variance)

    def to_dict(self) -> dict:
        return {**asdict(self), 'layers': list(self.layers)}
