"""What all architectures share: plain data, checked; JSON in and out."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmvitcompress.arch.checks import WIDTHS, check_patch
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens import METHODS, TokenSpec
from mmvitcompress.tokens.grids import Grid
from mmvitcompress.utils.checks import build_spec, pair
from mmvitcompress.utils.files import write_json

CONVENTIONS = ('fvcore', 'matmul')
"""How MACs are counted.

'fvcore' adds what fvcore counts for normalisations (5 for each element of a
LayerNorm, 2 for one of a BatchNorm at inference) to the multiply-accumulates
of matrix products and convolutions; 'matmul' counts only the latter.
"""

DEEPEST = 1000
"""Blocks that an arch may have at the most."""


class Arch:
    """Base of the architectures' frozen dataclasses.

    Token methods are given and found by their keys
    (:data:`~mmvitcompress.tokens.METHODS`), as ``ViTArch(…,
    token_merging=dict(layers=(5, 8)))`` and ``arch.token_merging``, which is
    None where there is none.

    Attributes:
        family: Name of the family, which a dict of an arch's values carries.
        layers_counted: How ``layers`` of token methods are counted.
        token_dim: Width of the tokens that methods reduce, in channels.
        token_depth: Number of blocks that methods choose from.
        left_out: Values that :meth:`to_dict` leaves out where they are as by
            default.
        qk_unit: How many channels of queries and keys go only together: 2
            that rotary positions turn, else 1.
        kept_whole: Names of :data:`WIDTHS` that can't be pruned, since a norm
            sees all of the channels.
        reductions: Specifications of its token methods.
    """

    family: ClassVar[str]
    layers_counted: ClassVar[str] = 'blocks are counted from 1'
    left_out: ClassVar[tuple[str, ...]] = ()
    qk_unit: int = 1
    kept_whole: tuple[str, ...] = ()
    reductions: tuple[TokenSpec, ...]

    def __getattr__(self, name: str):
        if name not in METHODS:
            raise AttributeError(
                f'{type(self).__name__!r} object has no attribute {name!r}'
            )
        return next((s for s in self.reductions if s.key == name), None)

    def _make_plain(self) -> None:
        """Take NumPy's numbers as Python's, which JSON can hold."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):
                self._set(field.name, value.item())

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)

    def replace(self, **changes) -> 'Arch':
        """A copy with some values changed.

        Values that are what they would be if left open (such as widths that
        nothing was removed from) follow the changed ones; others stay.
        """
        open_ = {
            name: None
            for name, value in self._derived().items()
            if getattr(self, name) == value
        }
        # one width for all blocks is so for any number of blocks
        same = {
            name: widths[0]
            for name in WIDTHS
            if len(set(widths := getattr(self, name))) == 1
        }
        return dataclasses.replace(self, **{**same, **open_, **changes})

    def _derived(self) -> dict:
        """What stands for each value that may be left open."""
        raise NotImplementedError

    def with_reductions(self, *specs: TokenSpec) -> 'Arch':
        """A copy with these token methods, and no others."""
        return self.replace(reductions=specs)

    def _settle_reductions(self) -> None:
        """Check the token methods, in themselves and together."""
        specs = [spec for spec in self.reductions if not spec.is_empty()]
        self._set('reductions', ())
        for spec in specs:
            if self.family not in spec.families:
                raise ConfigError(
                    f'{spec.key} is made for the family '
                    f'{" or ".join(spec.families)}, but the arch is a '
                    f'{self.family}: leave it out, or take such an arch'
                )
        specs = tuple(spec.resolved(self) for spec in specs)
        self._check_grids(specs)
        for spec in specs:
            spec.check(self)
        self._set('reductions', specs)

    def _check_grids(self, specs: Sequence[TokenSpec]) -> None:
        last = self._last_gridded(specs)
        for spec in specs:
            met = spec.last_gridded()
            if last is not None and met is not None and met > last[0]:
                raise ConfigError(
                    f'{spec.key}.layers must not lie after block {last[0]}, '
                    f'from which on {last[1]} leaves no grid of tokens, but '
                    f'got {met}: merge earlier, or let {last[1]} start later'
                )

    def _last_gridded(
        self, specs: Sequence[TokenSpec]
    ) -> tuple[int, str] | None:
        """The last block that meets a grid of tokens, and the key of the
        method that leaves none; None if all blocks do."""
        found = [
            (block, spec.key)
            for spec in specs
            if (block := spec.ungridded_after(self.token_depth)) is not None
        ]
        if len(found) > 1:
            keys = ' and '.join(key for _, key in found)
            raise ConfigError(
                f'{keys} both leave no grid of tokens: give only one of them'
            )
        return found[0] if found else None

    def to_dict(self) -> dict:
        """Builtin types only; the inverse of :meth:`from_dict`."""
        content = {'family': self.family}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in self.left_out and value == field.default:
                continue
            if hasattr(value, 'to_dict'):
                value = value.to_dict()
            content[field.name] = (
                list(value) if isinstance(value, tuple) else value
            )
        del content['reductions']
        return content | {s.key: s.to_dict() for s in self.reductions}

    @classmethod
    def from_dict(cls, content: dict) -> 'Arch':
        """Build from :meth:`to_dict`'s result or from hand-written values.

        Raises:
            ConfigError: If a key is unknown or a required one is missing.
        """
        cls.check_keys(content)
        for field in dataclasses.fields(cls):
            needed = field.default is dataclasses.MISSING
            if needed and field.name not in content:
                raise ConfigError(
                    f'arch needs the key {field.name!r} (or a key base)'
                )
        return cls(**{k: v for k, v in content.items() if k != 'family'})

    @classmethod
    def check_keys(cls, content: dict) -> None:
        """Raise ConfigError if a key is none of this family's."""
        known = [f.name for f in dataclasses.fields(cls)]
        known = [name for name in known if name != 'reductions'] + [*METHODS]
        for key in content:
            if key not in ('family', *known):
                raise ConfigError(
                    f'arch has no key {key!r}; known keys are '
                    f'{", ".join(known)}'
                )

    def grid(self, img_size: int | Grid) -> Grid:
        """Patch grid of an image; a last incomplete patch counts as one.

        Raises:
            ConfigError: If the image is smaller than one patch.
        """
        size = self.patch_size
        height, width = pair('img_size', img_size)
        check_patch(height, width, size)
        return -(-height // size), -(-width // size)

    def widths(self, layer: int) -> tuple[int, int, int]:
        """(Q/K, V, MLP) widths of block ``layer``, counted from 1."""
        i = layer - 1
        return self.qk_dims[i], self.v_dims[i], self.mlp_dims[i]

    def save(self, path: str | Path) -> None:
        """Write the arch as JSON, making its folder if need be."""
        write_json(path, self.to_dict())


def read_json(path: str | Path) -> dict:
    """The values in an arch JSON.

    Raises:
        ConfigError: If the file is missing, not JSON or not an object.
    """
    try:
        content = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise ConfigError(
            f'arch file {str(path)!r} not found; correct its path'
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f'arch file {str(path)!r} is not JSON: {error}; correct it, or '
            'write it again'
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(
            f'arch file {str(path)!r} holds no JSON object; give '
            f'one, as {{"base": "deit_small"}}, but got {content!r}'
        )
    return content


def dense(arch: Arch) -> Arch:
    """The arch without token methods, what reductions refer to."""
    return arch.with_reductions()


def takes_token_methods(cls: type[Arch]) -> type[Arch]:
    """Let an arch's class take token methods by their keys.

    Beside ``reductions`` it then takes ``KEY=…`` for every method: a spec, a
    dict of its arguments, the layers alone, or None for none.
    """
    init = cls.__init__

    def __init__(self, *args, reductions=(), **kwargs):
        specs = {spec.key: spec for spec in reductions}
        for key, method in METHODS.items():
            if key in kwargs:
                specs[key] = build_spec(key, method, kwargs.pop(key))
        ordered = (specs.get(key) for key in METHODS)
        reductions = tuple(spec for spec in ordered if spec is not None)
        init(self, *args, reductions=reductions, **kwargs)

    cls.__init__ = __init__
    return cls
