"""Which blocks' features are wanted, and what is done to them."""

from collections.abc import Callable, Sequence

from torch import Tensor

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens import TokenState
from mmvitcompress.utils.checks import output_indices

FORMATS = ('NCHW', 'NLC')


def block_indices(
    indices: int | Sequence[int] | None, depth: int
) -> list[int]:
    """Blocks counted from 0, ascending, from what timm's callers say.

    Args:
        indices: Blocks, negative ones from the end; one number for so many of
            the last blocks; None for all.
        depth: How many there are.

    Raises:
        ConfigError: If one is out of range or named twice.
    """
    if indices is None:
        return list(range(depth))
    if not isinstance(indices, int):
        return sorted(output_indices(indices, depth, 'block'))
    if not 1 <= indices <= depth:
        raise ConfigError(
            f'indices must take 1 to {depth} of the last blocks, but got '
            f'{indices}'
        )
    return list(range(depth - indices, depth))


def normalised(
    tokens: Tensor, state: TokenState, norm: Callable[[Tensor], Tensor]
) -> tuple[Tensor, TokenState]:
    """Tokens (B, n, D), and the patches that have left, through a norm."""
    return norm(tokens), state.apply(norm)
