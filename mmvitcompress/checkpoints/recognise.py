"""Say whose weights a file holds, and name them as timm does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.swin import SwinArch
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.file import Checkpoint
from mmvitcompress.checkpoints.swin import (
    infer_swin_arch,
    is_swin,
    swin_to_timm_keys,
)
from mmvitcompress.checkpoints.vit import infer_arch, to_timm_keys
from mmvitcompress.errors import CheckpointError


class Family(NamedTuple):
    """A kind of nets.

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


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors of a net of ours.

    Attributes:
        family: Of the net.
        tensors: Under timm's names, the head's included.
        arch: Their shape; None if it is not known yet.
        path: Where they came from, for messages.
    """

    family: Family
    tensors: dict[str, Tensor]
    arch: Arch | None
    path: str

    def with_arch(self, hint: Arch | None = None) -> 'Weights':
        """Read the shape off the tensors, unless the file carries it.

        Args:
            hint: What can't be seen in tensors comes from this arch.

        Raises:
            CheckpointError: If these aren't the tensors of a dense model.
        """
        if self.arch is not None:
            return self
        arch = self.family.infer(self.tensors, hint, self.path)
        return replace(self, arch=arch)


def recognise(checkpoint: Checkpoint, family: Family | None = None) -> Weights:
    """Name a checkpoint's tensors as timm does.

    Args:
        checkpoint: Of timm, DeiT, DINOv2, LV-ViT, Microsoft, OpenMMLab, or of
            a backbone or whole model of ours.
        family: What it has to be. Defaults to whatever it is.

    Raises:
        CheckpointError: If it is of another family.
    """
    tensors = to_timm_keys(checkpoint.state_dict)
    swin = is_swin(tensors)
    if family is not None and swin != (family is SWIN):
        other = VIT if family is SWIN else SWIN
        raise CheckpointError(
            f'checkpoint {checkpoint.path!r} is not a {family.title}: it has '
            f'{"" if swin else "no "}position biases of windows; for a '
            f'{other.title} use {other.backbone}'
        )
    if swin:
        tensors = swin_to_timm_keys(tensors)
    family = SWIN if swin else VIT
    return Weights(family, tensors, checkpoint.arch, checkpoint.path)
