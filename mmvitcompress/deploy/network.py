"""A model reduced to what a graph holds: images in, tensors out.

Data flow: model → copy of its encoder or its whole network, with position
embeddings settled for the sizes that the graph is to take → torch.export.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mmvitcompress.analysis.inference import encoder_parts, image_channels
from mmvitcompress.deploy.dynamic_size import (
    divisible,
    free_sizes,
)
from mmvitcompress.deploy.heads import graph_head
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.layers.positions import resample_position
from mmvitcompress.models.swin import Swin
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import TokenMap
from mmvitcompress.tokens.grids import Grid
from mmvitcompress.utils.checks import check_choice, check_positive, pair

PARTS = ('backbone', 'encoder', 'all')
DYNAMIC = ('batch', 'size', 'none')


@dataclass(frozen=True)
class GraphSpec:
    """What a graph takes.

    Args:
        shape: Height and width of the images, in pixels; of a graph of
            dynamic size those that it is traced with.
        dynamic: 'batch' for any number of images, 'size' for any number and
            any size that is a multiple of the network's
            :meth:`~DeployedNetwork.size_step`, 'none' for ``batch_size``
            images only. Defaults to 'batch'.
        batch_size: Images of a graph with ``dynamic='none'``. Defaults to 1.

    Raises:
        ConfigError: If a value is out of range.
    """

    shape: tuple[int, int]
    dynamic: str = 'batch'
    batch_size: int = 1

    def __post_init__(self):
        check_choice('dynamic', self.dynamic, DYNAMIC)
        check_positive('batch_size', self.batch_size)
        pair('shape', self.shape)


class DeployedNetwork(nn.Module):
    """Backbone, encoder or whole network of a model, ready to become a graph.

    A copy: the model itself stays as it is. Position embeddings become
    constants of the graph's grid; for dynamic size they are interpolated in
    the graph, as :class:`~mmvitcompress.models.vit.ViT` does.

    Args:
        model: A segmentor of mmseg, a detector of mmdet, an
            :class:`~mmvitcompress.models.ImageClassifier`, or a bare
            backbone.
        part: 'encoder' for backbone and neck, 'all' for the raw outputs of
            the head, 'backbone' for what leaves the backbone, merged tokens
            as they are.
        spec: What the graph is to take.

    Raises:
        ConfigError: If such a graph can't be made of this model.
    """

    def __init__(self, model: nn.Module, part: str, spec: GraphSpec):
        super().__init__()
        check_choice('part', part, PARTS)
        self.part = part
        self.spec = spec
        backbone, neck = encoder_parts(model)
        backbone = model if backbone is None else backbone
        if isinstance(backbone, ViT | Swin):
            for reduction in backbone.arch.reductions:
                reduction.check_export()
        head = graph_head(model) if part == 'all' else None
        self.backbone = copy.deepcopy(backbone)
        self.neck = copy.deepcopy(None if part == 'backbone' else neck)
        self.head = copy.deepcopy(head)
        self.eval().requires_grad_(False)
        self._settle_positions()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W), normalised → one map for each level, or logits."""
        if self.spec.dynamic == 'size':
            images = divisible(images, self.size_step())
        outputs = self.backbone(images)
        if self.neck is not None:
            outputs = self.neck(outputs)
        if self.head is not None:
            outputs = self.head(outputs)
        return tuple(_tensors(outputs, self.part == 'backbone'))

    def describe(self) -> str:
        """The types of its parts, for messages."""
        parts = (self.backbone, self.neck, getattr(self.head, 'head', None))
        return ' + '.join(type(p).__name__ for p in parts if p is not None)

    def size_step(self) -> Grid:
        """Height and width must be multiples of these where they may vary.

        Grids are then even wherever they are merged, and images whole
        patches: nothing has to be padded.
        """
        arch, rows, columns = self.backbone.arch, 1, 1
        for spec in arch.reductions:
            step = spec.grid_step()
            rows, columns = rows * step[0], columns * step[1]
        return arch.patch_size * rows, arch.patch_size * columns

    def example(self, batch_size: int | None = None) -> Tensor:
        """Random images (B, C, H, W) that the graph takes."""
        # 1 would become a constant
        least = 1 if self.spec.dynamic == 'none' else 2
        batch_size = batch_size or max(least, self.spec.batch_size)
        return self.images(batch_size, self.spec.shape)

    def images(self, batch_size: int, shape: tuple[int, int]) -> Tensor:
        """Random images (B, C, H, W) of the backbone's own channels."""
        return torch.randn(batch_size, image_channels(self), *shape)

    def _settle_positions(self) -> None:
        backbone = self.backbone
        if self.spec.dynamic == 'size':
            self._require_dynamic_size()
            free_sizes(self)
        if not isinstance(backbone, ViT) or backbone.pos_embed is None:
            return
        if self.spec.dynamic == 'size':
            # whatever the grid: nothing may branch on symbols
            backbone._position = lambda grid: resample_position(
                backbone.pos_embed,
                backbone.arch.pos_grid,
                grid,
                backbone._pos_prefix,
            )
            return
        with torch.no_grad():
            grid = backbone.arch.grid(self.spec.shape)
            position = backbone._position(grid).clone()
        backbone._position = lambda grid: position

    def _require_dynamic_size(self) -> None:
        remedy = "use dynamic='batch', and one graph for each size"
        if isinstance(self.backbone, Swin):
            raise ConfigError(
                "dynamic='size' is not possible for a Swin, whose windows and "
                f'masks differ from size to size: {remedy}'
            )
        if not isinstance(self.backbone, ViT):
            raise ConfigError(
                "dynamic='size' needs a CompressedViT, but the backbone is "
                f'of type {type(self.backbone).__name__}: {remedy}'
            )
        if self.head is not None and not self.head.sizes_may_vary:
            raise ConfigError(
                "dynamic='size' is not possible for "
                f'{type(self.head.head).__name__}, whose maps have the sizes '
                f'that it was traced with: {remedy}'
            )
        arch = self.backbone.arch
        for spec in arch.reductions:
            if spec.ungridded_after(arch.depth) is not None:
                raise ConfigError(
                    f"dynamic='size' is not possible with {spec.key}, whose "
                    f'numbers of tokens are constants of the graph: {remedy}'
                )
        step = self.size_step()
        if any(side % n for side, n in zip(self.spec.shape, step)):
            raise ConfigError(
                f"with dynamic='size' height and width must be multiples of "
                f'{step[0]} and {step[1]} (patches, merged evenly), but got '
                f'{self.spec.shape[0]}×{self.spec.shape[1]}: give another '
                'shape, or pad images'
            )


def export_program(network: DeployedNetwork) -> ExportedProgram:
    """A network as a graph of torch, which ``torch.export.save`` writes.

    Raises:
        ConfigError: If its sizes cannot vary as they were meant to.
    """
    spec = network.spec
    axes = {}
    if spec.dynamic != 'none':
        axes[0] = Dim('batch', max=2**31)
    if spec.dynamic == 'size':
        step = network.size_step()
        axes[2], axes[3] = step[0] * Dim('rows'), step[1] * Dim('columns')
    try:
        with torch.no_grad():
            return torch.export.export(
                network,
                (network.example(),),
                dynamic_shapes={'images': axes},
                strict=False,
            )
    except (torch._dynamo.exc.UserError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        remedy = {
            'size': "use dynamic='batch'",
            'batch': "use dynamic='none'",
            'none': "use part='encoder'",
        }[spec.dynamic]
        raise ConfigError(
            f'{network.describe()} cannot become a graph of '
            f'dynamic={spec.dynamic!r}: {remedy}. {line}'
        ) from error


def _tensors(outputs: Any, merged: bool = False) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, TokenMap) and merged:
        yield outputs.tokens
    elif isinstance(outputs, TokenMap):
        raise ConfigError(
            'the backbone returns reduced tokens (restore=False), and no neck '
            'restores them: set model.backbone.restore=True or add the neck '
            'UnmergeUpsample'
        )
    elif isinstance(outputs, list | tuple):
        for output in outputs:
            yield from _tensors(output, merged)
    else:
        raise ConfigError(
            'a graph returns tensors only, but the network returns '
            f'{type(outputs).__name__}'
        )
