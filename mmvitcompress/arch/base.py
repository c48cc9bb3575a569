"""What all architectures share: plain data, checked; JSON in and out."""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.specs import Grid
from mmvitcompress.utils.files import write_json

CONVENTIONS = ('fvcore', 'matmul')
"""How MACs are counted.

'fvcore' adds what fvcore counts for normalisations (5 for each element of a
LayerNorm, 2 for one of a BatchNorm at inference) to the multiply-accumulates
of matrix products and convolutions; 'matmul' counts only the latter.
"""


class Arch:
    """Base of the architectures' frozen dataclasses.

    Attributes:
        family: Name of the family, which a dict of an arch's values carries.
    """

    family: ClassVar[str]

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)

    def replace(self, **changes) -> 'Arch':
        """A copy with some values changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        """Builtin types only; the inverse of :meth:`from_dict`."""
        content = {'family': self.family}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if hasattr(value, 'to_dict'):
                value = value.to_dict()
            content[field.name] = (
                list(value) if isinstance(value, tuple) else value
            )
        return content

    @classmethod
    def from_dict(cls, content: dict) -> 'Arch':
        """Build from :meth:`to_dict`'s result or from hand-written values.

        A key ``base`` names an arch of :mod:`mmvitcompress.arch.zoo` whose
        values the others override. A key ``family`` may be left away.

        Raises:
            ConfigError: If a key is unknown, a required one is missing, or
                the values are of another family.
        """
        content = dict(content)
        base = content.pop('base', None)
        family = content.pop('family', cls.family)
        if base is not None:
            from mmvitcompress.arch.zoo import get_arch

            base = get_arch(base)
            family = base.family if family == cls.family else family
        if family != cls.family:
            raise ConfigError(
                f'arch must be of the family {cls.family!r} here, but got '
                f'{family!r}'
            )
        fields = dataclasses.fields(cls)
        known = [field.name for field in fields]
        unknown = sorted(set(content) - set(known))
        if unknown:
            raise ConfigError(
                f'arch has no key {unknown[0]!r}; known keys are '
                f'{", ".join(known)}'
            )
        if base is not None:
            return base.replace(**content)
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


def dense(arch):
    """The arch without merging and slimming, what reductions refer to."""
    reductions = ('token_merging', 'patch_slimming')
    changes = {name: None for name in reductions if hasattr(arch, name)}
    return arch.replace(**changes)
