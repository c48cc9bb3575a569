"""What the backbones share: conventions, checks, and ways to checkpoints."""

import re
from collections.abc import Mapping
from pathlib import Path

from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.checkpoints.file import read_checkpoint
from mmvitcompress.checkpoints.recognise import (
    FAMILIES,
    Family,
    Weights,
    recognise,
)
from mmvitcompress.errors import ConfigError, MissingCheckpointError
from mmvitcompress.tokens import METHODS, TokenState
from mmvitcompress.utils.checks import build_spec
from mmvitcompress.utils.files import shipped


class Backbone:
    """What OpenMMLab expects of a backbone beside the net itself.

    Stands before the net among the bases.

    Attributes:
        pretrained_cfg: How the checkpoint notes that images are prepared, by
            timm's names; {} if it doesn't.
    """

    pretrained_cfg: Mapping

    out_indices: tuple[int, ...]
    norm_eval = False

    def init_weights(self) -> None:
        """Keep the weights: building has drawn them, or loaded them.

        MMEngine calls this of all parts before training. Drawing anew would
        undo what ``checkpoint`` loaded.
        """

    def train(self, mode: bool = True) -> 'Backbone':
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if mode:
            self._freeze()
        return self

    def _freeze(self) -> None:
        norms = self.modules() if self.norm_eval else ()
        for module in norms:
            if isinstance(module, _BatchNorm):
                module.eval()
        for part in self._frozen():
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()

    def _outputs(self, x: Tensor) -> list[tuple[int, Tensor, TokenState]]:
        """Index, tokens and state of each output, as the config orders."""
        taken = super().forward(x, self.out_indices)
        found = dict(zip(sorted(self.out_indices), taken))
        return [(index, *found[index]) for index in self.out_indices]


# -- arguments --------------------------------------------------------------


def check_no_loading(init_cfg, methods: dict) -> None:
    """Raise ConfigError for MMEngine's ways to weights."""
    # mmseg's segmentors hand over their own argument ``pretrained``
    pretrained = methods.pop('pretrained', None)
    for name, value in dict(init_cfg=init_cfg, pretrained=pretrained).items():
        if value is not None:
            raise ConfigError(
                f'{name} is not supported, since it skips what does not fit; '
                f'use backbone.checkpoint=…, but got {value!r}'
            )


def check_methods(backbone: str, methods: Mapping) -> None:
    """Raise ConfigError unless these are arguments of token methods."""
    for name in methods:
        if name not in METHODS:
            raise ConfigError(
                f'{backbone} takes no argument {name!r}; correct or remove '
                f'it: token methods are {", ".join(METHODS)}'
            )


def switched_off(methods: Mapping) -> list[str]:
    """Token methods that a config switches off, as by ``layers=()``."""
    return [
        key
        for key, value in methods.items()
        if value is not None
        and build_spec(key, METHODS[key], value).is_empty()
    ]


def has_all_channels(arch: Arch) -> bool:
    """Whether a ViT's heads are whole and its MLPs of one width."""
    heads = {*arch.qk_dims, *arch.v_dims}
    return heads == {arch.head_dim} and len({*arch.mlp_dims}) == 1


def check_frozen(frozen_stages: int, count: int) -> None:
    """Raise ConfigError if there are fewer than ``frozen_stages``."""
    if type(frozen_stages) is not int or not -1 <= frozen_stages <= count:
        raise ConfigError(
            f'frozen_stages must be a whole number in -1..{count}, but got '
            f'{frozen_stages!r}'
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


def log(line: str) -> None:
    """Write a line to the log of the run."""
    print_log(line, 'current')


def read_weights(
    family: Family,
    path: str,
    wanted: Arch | None,
    how_to_make: str,
    img_size: tuple[int, int] | None = None,
) -> Weights:
    """Tensors under timm's names, and their arch.

    Args:
        family: What the backbone is built for.
        path: The checkpoint's file.
        wanted: What can't be seen in tensors comes from this arch.
        how_to_make: How to come by such a file, said if it isn't there and
            its name tells no recipe.
        img_size: What stands beside the arch, in pixels. Defaults to none.

    Raises:
        CheckpointError: If the file is missing, unsafe, damaged or of another
            family.
    """
    try:
        checkpoint = read_checkpoint(path)
    except MissingCheckpointError as error:
        raise MissingCheckpointError(
            f'{error}: {_made_by(path) or how_to_make}, or point elsewhere '
            'with --cfg-options model.backbone.checkpoint=PATH (the '
            'checkpoint of a whole trained model will do; None starts from '
            'random weights)'
        ) from None
    return recognise(checkpoint, family).with_arch(wanted, img_size)


def _made_by(path: str) -> str | None:
    """How the recipe that a checkpoint is named after makes it."""
    exported, run = Path(path).stem, Path(path).parent.name
    for name, then in ((exported, ' and tools/export_pruned.py'), (run, '')):
        short = re.sub('_(t|s|b)(iny|mall|ase)_', r'_\1_', name)
        for recipe in (name, short):
            config = f'configs/imagenet/{recipe}.py'
            if recipe and shipped(config):
                return f'make it by tools/train.py {config}{then}'
    return None


def note_arch(module, state_dict, prefix: str, metadata: dict) -> None:
    """Note the arch beside a module's tensors, whoever saves them.

    A hook of ``state_dict``: what it notes stands in no tensor, but in the
    meta data that PyTorch keeps for each module.
    """
    metadata['arch'] = module.arch.to_dict()
