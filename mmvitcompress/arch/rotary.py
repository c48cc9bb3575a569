"""Rotary position embeddings of ViTs, as plain data.

A token at the coordinates (y, x) has its queries and keys turned, pair of
channels by pair: a quarter of a head's pairs of channels by y · f₀, y · f₁, …,
as many by x · f₀, x · f₁, …, where fᵢ = T^(−i / n) of n frequencies. The i-th
channel of a head's first half is the partner of the i-th of its second half.
Where others put partners side by side, queries and keys are reordered when
they are read, which no logit feels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.grids import Grid
from mmvitcompress.utils.checks import (
    build_spec,
    check_choice,
    check_flag,
    check_positive_number,
    is_number,
    pair,
)


@dataclass(frozen=True)
class Rotary:
    """How positions turn queries and keys.

    Args:
        coords: 'normalized': centres of patches in [−1, 1] along each side of
            the image, times 2π (DINOv3); or 'index': rows and columns,
            counted from 0 (EVA-02). Defaults to 'normalized'.
        temperature: T, whose powers the frequencies are. Defaults to 100.
        reference: The grid (H, W) onto which rows and columns of any other
            grid are scaled; of 'index' only. Defaults to None: as they are.
        offset: What is added to rows and columns. Defaults to 0.
        x_first: Whether x turns the first pairs and y the others. Defaults to
            False.

    Raises:
        ConfigError: If a value is out of range, or values don't fit together.
    """

    coords: str = 'normalized'
    temperature: float = 100.0
    reference: int | Grid | None = None
    offset: float = 0.0
    x_first: bool = False

    def __post_init__(self):
        choices = ('normalized', 'index')
        check_choice('rope.coords', self.coords, choices)
        check_positive_number('rope.temperature', self.temperature)
        if not is_number(self.offset):
            raise ConfigError(
                f'rope.offset must be a number, but got {self.offset!r}'
            )
        check_flag('rope.x_first', self.x_first)
        if self.reference is None:
            return
        if self.coords != 'index':
            raise ConfigError(
                "rope.reference scales rows and columns: give coords='index', "
                f'or leave it out, but got {self.reference!r}'
            )
        reference = pair('rope.reference', self.reference)
        object.__setattr__(self, 'reference', reference)

    @classmethod
    def of(cls, value: 'Rotary | Mapping | None') -> 'Rotary | None':
        """From a dict of its arguments; None and itself pass through."""
        if value is None or isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(
                'rope must be a dict of arguments, such as '
                f"dict(coords='normalized'), but got {value!r}"
            )
        return build_spec('rope', cls, dict(value))

    def to_dict(self) -> dict:
        """Builtin types only, without what is as by default."""
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in content.items()
            if name == 'coords' or value != getattr(type(self), name)
        }


def check_turning(head_dim: int, qk_dims: tuple[int, ...]) -> None:
    """Raise ConfigError unless heads of so many channels can be turned.

    Args:
        head_dim: Channels of a head before pruning.
        qk_dims: Channels of queries and keys in each head, block by block.
    """
    if head_dim % 4:
        raise ConfigError(
            'rope needs pairs of channels for both sides of the image: '
            f'head_dim must be a multiple of 4, but got {head_dim}'
        )
    for width in qk_dims:
        if width % 2 or width > head_dim:
            raise ConfigError(
                'with rope, channels of queries and keys go in pairs: qk_dims '
                f'must be even and at most head_dim ({head_dim}), but got '
                f'{width}'
            )
