"""What the backbones share: checks of arguments, and ways to checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mmengine.logging import print_log
from torch import Tensor, nn

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.swin import SwinArch
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.checkpoints.file import (
    checkpoint_arch,
    load_strict,
    read_checkpoint,
)
from mmvitcompress.checkpoints.swin import (
    infer_swin_arch,
    is_swin,
    swin_to_timm_keys,
)
from mmvitcompress.checkpoints.vit import (
    HEAD_PREFIXES,
    infer_arch,
    to_timm_keys,
)
from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.tokens import METHODS
from mmvitcompress.tokens.restore import check_restore_mode

_WIDTHS = ('qk_dims', 'v_dims', 'mlp_dims')


class Family(NamedTuple):
    """What a backbone is built for.

    Attributes:
        arch: Class of its architectures.
        title: What it is called in texts.
        backbone: Name of the backbone's type.
        example: Name of one of its architectures.
        infer: Reads the arch off tensors, given what the config asks for and
            where they came from.
    """

    arch: type[Arch]
    title: str
    backbone: str
    example: str
    infer: Callable[[Mapping[str, Tensor], Arch | None, str], Arch]


VIT = Family(ViTArch, 'plain ViT', 'CompressedViT', 'deit_small', infer_arch)
SWIN = Family(SwinArch, 'Swin', 'CompressedSwin', 'swin_tiny', infer_swin_arch)
FAMILIES = {family.arch.family: family for family in (VIT, SWIN)}
"""Families by the name that a dict of an arch's values carries."""


# -- arguments --------------------------------------------------------------


def check_arguments(init_cfg: None, out_type: str, restore_mode: str) -> None:
    """Raise ConfigError for ``init_cfg``, or for an ``out_type`` or a
    ``restore_mode`` that there is not."""
    if init_cfg is not None:
        raise ConfigError(
            'init_cfg is not supported, since it skips what does not fit; '
            f'use checkpoint=… instead, but got {init_cfg}'
        )
    if out_type not in ('featmap', 'raw'):
        raise ConfigError(
            f"out_type must be 'featmap' or 'raw', but got {out_type!r}"
        )
    check_restore_mode('restore_mode', restore_mode)


def check_methods(backbone: str, methods: Mapping) -> None:
    """Raise ConfigError unless these are arguments of token methods."""
    for name in methods:
        if name not in METHODS:
            raise ConfigError(
                f'{backbone} takes no argument {name!r}; token methods are '
                f'{", ".join(METHODS)}'
            )


def check_frozen(frozen_stages: int, count: int) -> None:
    """Raise ConfigError if there are fewer than ``frozen_stages``."""
    if not -1 <= frozen_stages <= count:
        raise ConfigError(
            f'frozen_stages must lie in -1..{count}, but got {frozen_stages}'
        )


def wanted_arch(
    family: Family, arch: str | dict | Arch | None, **changes
) -> Arch | None:
    """The arch that a config asks for, or None if it leaves it open.

    Args:
        family: What the backbone is built for.
        arch: As the config has it; see
            :func:`~mmvitcompress.arch.zoo.get_arch`.
        **changes: Values that stand beside it in the config; None is none.

    Raises:
        ConfigError: If the arch is unknown, wrong or of another family, or
            changes have none to apply to.
    """
    changes = {k: v for k, v in changes.items() if v is not None}
    if arch is None:
        if changes:
            raise ConfigError(
                f'{next(iter(changes))} needs an arch to apply to; for '
                f'example arch={family.example!r}'
            )
        return None
    if isinstance(arch, dict) and 'base' not in arch:
        arch = {'family': family.arch.family, **arch}
    arch = get_arch(arch)
    if not isinstance(arch, family.arch):
        other = FAMILIES[arch.family]
        raise ConfigError(
            f'arch must be of the family {family.arch.family} for a '
            f'{family.backbone}, but got one of the family {arch.family}; for '
            f'a {other.title} use {other.backbone}'
        )
    return arch.replace(**changes)


def need_arch(family: Family, arch: Arch | None) -> Arch:
    """The arch; ConfigError if neither config nor checkpoint had one."""
    if arch is None:
        raise ConfigError(
            'arch is needed where no checkpoint carries one; for example '
            f'arch={family.example!r}'
        )
    return arch


# -- checkpoints ------------------------------------------------------------


def read_weights(
    family: Family, path: str, wanted: Arch | None, how_to_make: str
) -> tuple[dict[str, Tensor], Arch]:
    """Tensors under timm's keys, and their arch.

    Args:
        family: What the backbone is built for.
        path: The checkpoint's file.
        wanted: What can't be seen in tensors comes from this arch.
        how_to_make: How to come by the file, said if it isn't there.

    Raises:
        CheckpointError: If the file is missing, unsafe, damaged or of another
            family.
    """
    try:
        state_dict, meta = read_checkpoint(path)
    except CheckpointError as error:
        if 'not found' not in str(error):
            raise
        raise CheckpointError(
            f'{error}: {how_to_make}, or point elsewhere with --cfg-options '
            'model.backbone.checkpoint=PATH (the checkpoint of a whole '
            'trained model will do; None starts from random weights)'
        ) from None
    state_dict = to_timm_keys(state_dict)
    swin = is_swin(state_dict)
    if swin != (family is SWIN):
        other = VIT if family is SWIN else SWIN
        raise CheckpointError(
            f'checkpoint {path!r} is not a {family.title}: it has '
            f'{"" if swin else "no "}position biases of windows; for a '
            f'{other.title} use {other.backbone}'
        )
    if swin:
        state_dict = swin_to_timm_keys(state_dict)
    source = checkpoint_arch(meta, path)
    if source is None:
        source = family.infer(state_dict, wanted, path)
    return state_dict, source


def reconcile(
    source: Arch,
    wanted: Arch | None,
    path: str,
    identity: Sequence[str],
    remedies: Mapping[str, str] | None = None,
) -> Arch:
    """The checkpoint's arch, with what only the config asks for added.

    Args:
        source: The checkpoint's arch.
        wanted: The config's, or None if it leaves it open.
        path: The checkpoint's file, for messages.
        identity: Names of the values that must be equal. Windows of attention
            and token methods are the config's where the checkpoint has none;
            where both have some, the checkpoint's count.
        remedies: What to do about an unequal value, by its name.

    Raises:
        CheckpointError: If a value of ``identity`` differs.
    """
    if wanted is None:
        return source
    for name in identity:
        ours, theirs = getattr(wanted, name), getattr(source, name)
        if ours != theirs:
            remedy = (remedies or {}).get(name, '')
            raise CheckpointError(
                f'checkpoint {path!r} is of another arch: its {name} is '
                f'{theirs}, but the config asks for {ours}{remedy}'
            )
    added = {}
    for name in (*_WIDTHS, *METHODS):
        ours, theirs = getattr(wanted, name), getattr(source, name)
        if theirs is None:
            added[name] = ours
        elif ours is not None and theirs != ours:
            print_log(
                f'{name} of {path} replaces that of the config: {theirs}',
                'current',
            )
    if isinstance(wanted, ViTArch) and wanted.window_size is not None:
        # a matter of use, not of weights
        added['window_size'] = wanted.window_size
        added['global_blocks'] = wanted.global_blocks
    return source.replace(**added)


def load_weights(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    path: str,
    may_start: Mapping[str, Sequence[str]],
    may_ignore: Sequence[str],
) -> None:
    """Fill a backbone strictly, and log what starts anew.

    Args:
        model: The backbone.
        state_dict: Tensors under timm's keys; a head is ignored.
        path: Where they came from, for messages.
        may_start: Prefixes of parameters that may keep their initial values,
            under what to say if some do.
        may_ignore: Prefixes of tensors that the model may not have.

    Raises:
        CheckpointError: If anything doesn't fit.
    """
    new = load_strict(
        model,
        state_dict,
        path,
        may_miss=tuple(p for group in may_start.values() for p in group),
        may_ignore=(*HEAD_PREFIXES, *may_ignore),
    )
    notes = [
        f'; {note}'
        for note, prefixes in may_start.items()
        if any(name.startswith(tuple(prefixes)) for name in new)
    ]
    print_log(f'backbone loaded from {path}{"".join(notes)}', 'current')
