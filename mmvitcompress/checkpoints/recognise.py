"""Say whose weights a file holds, and name them as timm does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from torch import Tensor

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.swin import SwinArch
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.file import Checkpoint
from mmvitcompress.checkpoints.names import (
    has_pool,
    is_swin,
    net_of,
    partners_apart,
    refuse_foreign,
    swin_to_timm_keys,
    told_by_eva,
    told_by_names,
    vit_to_timm_keys,
)
from mmvitcompress.checkpoints.shapes import infer_arch, infer_swin_arch
from mmvitcompress.errors import CheckpointError

POOL_LEFT = 'the attention pool, and what follows it, is left aside'


class Family(NamedTuple):
    """A kind of nets.

    Attributes:
        arch: Class of its architectures.
        title: What it is called in texts.
        backbone: Name of the backbone's type.
        example: Name of one of its architectures.
        infer: Reads the arch off tensors; see
            :func:`~mmvitcompress.checkpoints.shapes.infer_arch`.
    """

    arch: type[Arch]
    title: str
    backbone: str
    example: str
    infer: Callable[..., Arch]


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
        told: Values of the arch that the file's names tell.
        pretrained_cfg: How images are to be prepared; {} if it isn't noted.
        notes: What was assumed, lines for a log.
        side_by_side: Whether rotary partners stand so, if there are any.
    """

    family: Family
    tensors: dict[str, Tensor]
    arch: Arch | None
    path: str
    told: Mapping = field(default_factory=dict)
    pretrained_cfg: Mapping = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    side_by_side: bool = False

    def with_arch(
        self,
        hint: Arch | None = None,
        img_size: tuple[int, int] | None = None,
    ) -> 'Weights':
        """Read the shape off the tensors, unless the file carries it.

        Args:
            hint: What can't be seen in tensors comes from this arch.
            img_size: What the config asks for, in pixels.

        Raises:
            CheckpointError: If these aren't the tensors of a dense model, or
                may be read in two ways.
        """
        if self.arch is not None:
            return self
        arch = self.family.infer(
            self.tensors, hint, self.path, self.told, img_size
        )
        tensors = self.tensors
        untold = self.side_by_side and 'rope' not in self.told
        if untold and hint is None and arch.pre_norm:
            raise CheckpointError(
                f'checkpoint {self.path!r} is a Perception Encoder, of whose '
                'rotary positions no tensor tells: convert it by its name in '
                'timm, or give an arch with rope'
            )
        if self.side_by_side and arch.rope is not None:
            tensors = partners_apart(tensors, arch.num_heads)
        assumed = []
        if hint is None:
            names = ['num_heads', 'norm_eps', 'skip_scale', 'pad_first', 'act']
            names += ['rope'] * untold
            assumed = [
                f'{name}={getattr(arch, name)}'
                for name in names
                if hasattr(arch, name)
                # whose CLIP it is, names tell; which activation, hardly
                and (name not in self.told or name == 'act')
            ]
        if 'pos_embed' in self.tensors and (
            hint is None or arch.pos_grid != hint.pos_grid
        ):
            height, width = arch.pos_grid
            assumed.append(
                f'positions of {height}×{width} patches, for '
                f'{arch.pos_embed} tokens'
            )
        notes = self.notes
        if assumed:
            notes += (
                f'tensors of {self.path} do not tell all: taken are '
                f'{", ".join(assumed)}; an arch in the config says otherwise',
            )
        return replace(
            self, tensors=tensors, arch=arch, notes=notes, side_by_side=False
        )


def recognise(checkpoint: Checkpoint, family: Family | None = None) -> Weights:
    """Name a checkpoint's tensors as timm does.

    Args:
        checkpoint: Of ours, or of whoever is known to
            :mod:`mmvitcompress.checkpoints.names`.
        family: What it has to be. Defaults to whatever it is.

    Raises:
        CheckpointError: If it is of another family, or of no known one.
    """
    path = checkpoint.path
    told = told_by_names(checkpoint.state_dict)
    tensors = net_of(checkpoint.state_dict, path)
    swin, side_by_side = is_swin(tensors), False
    if checkpoint.arch is None and not swin:
        by_eva, side_by_side = told_by_eva(tensors, path)
        told |= by_eva
        # a Perception Encoder, of whose rotary positions no tensor tells
        pooled = any('attn_pool.latent' in k for k in checkpoint.state_dict)
        side_by_side |= pooled and 'norm_pre.weight' in tensors
    refuse_foreign(tensors, path)
    if family is not None and swin != (family is SWIN):
        other = VIT if family is SWIN else SWIN
        raise CheckpointError(
            f'checkpoint {path!r} is not a {family.title}: it has '
            f'{"" if swin else "no "}position biases of windows; for a '
            f'{other.title} use {other.backbone}'
        )
    tensors = (swin_to_timm_keys if swin else vit_to_timm_keys)(tensors)
    tensors = {
        key: value.float() if value.is_floating_point() else value
        for key, value in tensors.items()
    }
    notes = checkpoint.notes
    if not swin and has_pool(checkpoint.state_dict):
        notes += (f'{path}: {POOL_LEFT}',)
    return Weights(
        SWIN if swin else VIT,
        tensors,
        checkpoint.arch,
        path,
        told,
        checkpoint.noted('pretrained_cfg'),
        notes,
        side_by_side,
    )
