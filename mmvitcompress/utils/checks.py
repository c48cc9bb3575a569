"""Check values that users give; errors name the value and the remedy."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from numbers import Integral

from mmvitcompress.errors import ConfigError

WIDEST = 100_000
"""More than widths of nets, and sides of images in pixels, are."""


def is_number(value) -> bool:
    """Whether this is a finite real number; a bool is none."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def is_whole(value) -> bool:
    """Whether this is a whole number, NumPy's included; a bool is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_flag(name: str, value) -> None:
    """Raise ConfigError unless ``value`` is True or False."""
    if type(value) is not bool:
        raise ConfigError(f'{name} must be True or False, but got {value!r}')


def check_positive(name: str, value) -> None:
    """Raise ConfigError unless ``value`` is a whole number of at least 1."""
    if not is_whole(value) or value < 1:
        raise ConfigError(
            f'{name} must be a whole number of at least 1, but got {value!r}'
        )


def is_extent(value, most: int = WIDEST, least: int = 1) -> bool:
    """Whether this is a whole number in a range, by default one that widths
    of nets and sides of images lie in."""
    return is_whole(value) and least <= value <= most


def check_extent(name: str, value, most: int = WIDEST, least: int = 1) -> None:
    """Raise ConfigError unless ``value`` lies in a range; see is_extent."""
    if not is_extent(value, most, least):
        raise ConfigError(
            f'{name} must be a whole number from {least} to {most}, but got '
            f'{value!r}'
        )


def check_positive_number(name: str, value) -> None:
    """Raise ConfigError unless ``value`` is a finite number above 0."""
    if not is_number(value) or value <= 0:
        raise ConfigError(
            f'{name} must be a positive number, but got {value!r}'
        )


def check_at_least_zero(name: str, value) -> None:
    """Raise ConfigError unless ``value`` is a finite number from 0 on."""
    if not is_number(value) or value < 0:
        raise ConfigError(
            f'{name} must be a finite number of at least 0, but got {value!r}'
        )


def check_fraction(name: str, value) -> None:
    """Raise ConfigError unless ``value`` is a number from 0 to 1."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ConfigError(f'{name} must lie in [0, 1], but got {value!r}')


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ConfigError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ConfigError(
            f'{name} must be one of {", ".join(choices)}, but got {value!r}'
        )


def check_typed(name: str, config) -> None:
    """Raise ConfigError if a config, given as a dict, names no type."""
    if isinstance(config, dict) and 'type' not in config:
        raise ConfigError(
            f'{name} must name its type, such as {name}=dict(type=…), but got '
            f'{config}'
        )


def check_target(target: float) -> None:
    """Raise ConfigError if a target reduction is no fraction."""
    if not is_number(target) or not 0 < target < 1:
        raise ConfigError(
            'a target reduction must lie between 0 and 1 (0.5 saves half of '
            f'the MACs), but got {target!r}'
        )


def pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) from one size or two."""
    sizes = tuple(value) if isinstance(value, Iterable) else (value,)
    if len(sizes) not in (1, 2) or not all(map(is_extent, sizes)):
        raise ConfigError(
            f'{name} must be one or two whole numbers from 1 to {WIDEST}, but '
            f'got {value!r}'
        )
    return int(sizes[0]), int(sizes[-1])


def per_block(
    name: str, value: int | Sequence[int], count: int
) -> tuple[int, ...]:
    """One width for each of ``count`` blocks, from one for all or each."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        value = (value,) * count
    value = tuple(value)
    if len(value) != count:
        raise ConfigError(
            f'{name} must be one width or one for each of {count} blocks, but '
            f'got {len(value)} widths, {value}'
        )
    for width in value:
        check_extent(name, width)
    return tuple(map(int, value))


def heads_left(
    heads: int | Sequence[int] | None, most: int, count: int
) -> tuple[int, ...] | None:
    """Heads of each of ``count`` blocks; None if all have as many as they
    may."""
    if heads is None:
        return None
    heads = per_block('heads', heads, count)
    if max(heads) > most:
        raise ConfigError(
            f'heads must not exceed num_heads ({most}), but got {heads}'
        )
    return None if min(heads) == most else heads


def layer_tuple(name: str, layers: int | Sequence[int]) -> tuple[int, ...]:
    """Whole numbers that ascend; ConfigError if ``layers`` are not."""
    given = layers
    layers = tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(map(is_whole, layers)):
        raise ConfigError(f'{name} must be whole numbers, but got {given!r}')
    layers = tuple(map(int, layers))
    if len(set(layers)) != len(layers):
        raise ConfigError(f'{name} must not repeat a layer, but got {layers}')
    if list(layers) != sorted(layers):
        raise ConfigError(f'{name} must ascend, but got {layers}')
    return layers


def check_layers(
    name: str,
    layers: Sequence[int],
    depth: int,
    counted: str = 'blocks are counted from 1',
) -> None:
    """Raise ConfigError if a layer lies outside of 1..depth."""
    for layer in layers:
        if not 1 <= layer <= depth:
            raise ConfigError(
                f'{name} must lie in 1..{depth} ({counted}), but got {layer}'
            )


def output_indices(
    out_indices: int | Sequence[int], count: int, unit: str
) -> tuple[int, ...]:
    """Outputs counted from 0, from what a config says.

    Args:
        out_indices: One or several; negative ones count from the end.
        count: How many there are.
        unit: Of what: 'block' or 'stage'.

    Raises:
        ConfigError: If there is none, or one is out of range or named twice.
    """
    if is_whole(out_indices):
        out_indices = [out_indices]
    if not isinstance(out_indices, Iterable) or not all(
        map(is_whole, out_indices := list(out_indices))
    ):
        raise ConfigError(
            f'out_indices must be whole numbers, but got {out_indices!r}'
        )
    indices = []
    for index in out_indices:
        if not -count <= index < count:
            raise ConfigError(
                f'out_indices must lie in 0..{count - 1} ({unit}s are counted '
                f'from 0 here), but got {index}'
            )
        indices.append(int(index) % count)
    if not indices or len(set(indices)) != len(indices):
        raise ConfigError(
            f'out_indices must name at least one {unit}, and each only once, '
            f'but got {out_indices}'
        )
    return tuple(indices)


def build_spec(name: str, spec: type, value):
    """A spec from a dict of its arguments, or from its layers alone; None and
    specs pass through."""
    if value is None or isinstance(value, spec):
        return value
    if isinstance(value, list | tuple):
        value = dict(layers=value)
    if not isinstance(value, dict):
        raise ConfigError(
            f'{name} must be a dict, or layers, but got {value!r}'
        )
    known = [field.name for field in dataclasses.fields(spec)]
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ConfigError(
            f'{name} has no key {unknown[0]!r}; known keys are '
            f'{", ".join(known)}'
        )
    try:
        return spec(**value)
    except TypeError as error:
        raise ConfigError(f'{name}: {error}') from None
