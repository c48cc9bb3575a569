"""What all architectures share: plain data, checked; JSON in and out."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens import METHODS, TokenSpec
from mmvitcompress.tokens.grids import Grid
from mmvitcompress.utils.checks import build_spec
from mmvitcompress.utils.files import write_json

CONVENTIONS = ('fvcore', 'matmul')
"""How MACs are counted.

'fvcore' adds what fvcore counts for normalisations (5 for each element of a
LayerNorm, 2 for one of a BatchNorm at inference) to the multiply-accumulates
of matrix products and convolutions; 'matmul' counts only the latter.
"""


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
        reductions: Specifications of its token methods.
    """

    family: ClassVar[str]
    layers_counted: ClassVar[str] = 'blocks are counted from 1'
    reductions: tuple[TokenSpec, ...]

    def __getattr__(self, name: str):
        if name not in METHODS:
            raise AttributeError(
                f'{type(self).__name__!r} object has no attribute {name!r}'
            )
        return next((s for s in self.reductions if s.key == name), None)

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)

    def replace(self, **changes) -> 'Arch':
        """A copy with some values changed."""
        return dataclasses.replace(self, **changes)

    def with_reductions(self, *specs: TokenSpec) -> 'Arch':
        """A copy with these token methods, and no others."""
        return self.replace(reductions=specs)

    def _settle_reductions(self) -> None:
        """Check the token methods, in themselves and together."""
        specs = [spec for spec in self.reductions if not spec.is_empty()]
        self._set('reductions', ())
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
            content[field.name] = (
                list(value) if isinstance(value, tuple) else value
            )
        del content['reductions']
        return content | {s.key: s.to_dict() for s in self.reductions}

    @classmethod
    def from_dict(cls, content: dict) -> 'Arch':
        """Build from :meth:`to_dict`'s result or from hand-written values.

        A key ``family`` may be left away;
        :func:`mmvitcompress.arch.zoo.arch_from_dict` knows a key ``base``.

        Raises:
            ConfigError: If a key is unknown, a required one is missing, or
                the values are of another family.
        """
        content = dict(content)
        family = content.pop('family', cls.family)
        if family != cls.family:
            raise ConfigError(
                f'arch must be of the family {cls.family!r} here, but got '
                f'{family!r}'
            )
        fields = dataclasses.fields(cls)
        known = [f.name for f in fields if f.name != 'reductions']
        known += METHODS
        unknown = sorted(set(content) - set(known))
        if unknown:
            raise ConfigError(
                f'arch has no key {unknown[0]!r}; known keys are '
                f'{", ".join(known)}'
            )
        missing = [
            field.name
            for field in fields
            if field.default is dataclasses.MISSING
            and field.name not in content
        ]
        if missing:
            raise ConfigError(
                f'arch needs the key {missing[0]!r} (or a key base)'
            )
        return cls(**content)

    def save(self, path: str | Path) -> None:
        """Write the arch as JSON, making its folder if need be."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> 'Arch':
        """Read an arch JSON.

        Raises:
            ConfigError: If the file is missing, not JSON or not an arch.
        """
        return cls.from_dict(read_json(path))


def read_json(path: str | Path) -> dict:
    """The values in an arch JSON.

    Raises:
        ConfigError: If the file is missing, not JSON or not an object.
    """
    try:
        content = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise ConfigError(f'arch file {str(path)!r} not found') from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f'arch file {str(path)!r} is not JSON: {error}'
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f'arch file {str(path)!r} holds no JSON object')
    return content


def check_image(img_size: Grid, patch_size: int) -> None:
    """Raise ConfigError if an image is smaller than one patch."""
    if min(img_size) < patch_size:
        raise ConfigError(
            f'img_size must be at least one patch ({patch_size} px), but got '
            f'{img_size}'
        )


def check_patch(img_size: Grid, patch_size: int) -> None:
    """Raise ConfigError if an image (H, W) is smaller than one patch."""
    height, width = img_size
    if height < patch_size or width < patch_size:
        raise ConfigError(
            f'an image must be at least one patch ({patch_size}×'
            f'{patch_size} px), but got {height}×{width}'
        )


def patch_grid(img_size: int | Grid, patch_size: int) -> Grid:
    """Patch grid of an image; a last incomplete patch counts as one.

    Raises:
        ConfigError: If the image is smaller than one patch.
    """
    square = isinstance(img_size, int)
    height, width = (img_size, img_size) if square else img_size
    check_patch((height, width), patch_size)
    return -(-height // patch_size), -(-width // patch_size)


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
