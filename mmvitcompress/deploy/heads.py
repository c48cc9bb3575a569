"""Heads as graphs have them: maps in, raw outputs out, nothing else.

What makes boxes, masks and classes of raw outputs (thresholds, non-maximum
suppression, resizing to the image) stays outside, in the model.
"""

from collections.abc import Sequence
from inspect import signature
from types import MethodType
from typing import Any

from torch import Tensor, nn

from mmvitcompress.errors import ConfigError

REMEDY = "use part='encoder'"


class GraphHead(nn.Module):
    """A head that takes the levels of backbone and neck alone.

    Args:
        head: The model's.
        last: Whether it reads the last level only, as classifiers do.
    """

    sizes_may_vary = True

    def __init__(self, head: nn.Module, last: bool = False):
        super().__init__()
        self.head = head
        self.last = last

    def forward(self, levels: Sequence[Tensor]) -> Any:
        """Maps (B, C, h, w) → what the head returns."""
        return self.head(levels[-1] if self.last else levels)

    def answer(self, outputs: Tensor | Sequence[Tensor]) -> Any:
        """What the head's own ``forward`` would return, of a graph's outputs
        (of a segmentor or classifier)."""
        return outputs if isinstance(outputs, Tensor) else outputs[0]


class QueryHead(GraphHead):
    """MMDetection's or MMSegmentation's Mask2Former head, for one size.

    Returns the logits of classes (B, Q, classes + 1) and of masks
    (B, Q, h, w) of the last decoder layer, of which ``predict`` makes maps or
    instances.

    Args:
        head: With an ``MSDeformAttnPixelDecoder``.

    Raises:
        ConfigError: If it has another pixel decoder.
    """

    sizes_may_vary = False

    def __init__(self, head: nn.Module):
        super().__init__(head)
        # needs mmdet, as such a head does
        from mmdet.models.layers import MSDeformAttnPixelDecoder

        if not isinstance(head.pixel_decoder, MSDeformAttnPixelDecoder):
            raise ConfigError(
                "part='all' needs a head with an MSDeformAttnPixelDecoder, "
                f'not {type(head.pixel_decoder).__name__}: {REMEDY}'
            )

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps (B, C, h, w) → logits of classes and of masks."""
        from mmvitcompress.deploy.mask2former import decode_pixels

        decoder = self.head.pixel_decoder
        decoder.forward = MethodType(decode_pixels, decoder)
        try:
            classes, masks = self.head(levels, None)
        finally:
            del decoder.forward
        return classes[-1], masks[-1]

    def answer(
        self, outputs: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Lists of layers, of which ``predict`` takes the last."""
        classes, masks = outputs
        return [classes], [masks]


def graph_head(model: nn.Module) -> GraphHead:
    """What turns levels into raw outputs, as a module of its own.

    Logits of segmentors and classifiers; logits and boxes of one-stage
    detectors, level by level; of Mask2Former the logits of classes and masks
    of the last layer.

    Raises:
        ConfigError: If that is not all that the head does.
    """
    name = head_name(model)
    head = name and getattr(model, name)
    if head is None or getattr(model, 'backbone', None) is None:
        raise ConfigError(_why_not(model))
    if hasattr(head, 'pixel_decoder'):
        return QueryHead(head)
    parameters = signature(head.forward).parameters
    if isinstance(head, nn.ModuleList) or len(_needed(parameters)) != 1:
        raise ConfigError(
            f"part='all' needs one {name} that takes maps alone, which "
            f'{type(head).__name__} is not: {REMEDY}'
        )
    return GraphHead(head, last=name == 'head')


def head_name(model: nn.Module) -> str | None:
    """Where a model keeps the head that a graph can hold, if it has one."""
    if hasattr(model, 'roi_head') or hasattr(model, 'decoder'):
        return None
    kinds = ('decode_head', 'panoptic_head', 'bbox_head', 'head')
    return next((n for n in kinds if getattr(model, n, None)), None)


def _needed(parameters) -> list:
    return [p for p in parameters.values() if p.default is p.empty]


def _why_not(model: nn.Module) -> str:
    kind = type(model).__name__
    if hasattr(model, 'roi_head'):
        return (
            f"part='all' is not possible for {kind}: its RoI head works on "
            'regions that the RPN finds, of which every image has another '
            f'number, and graphs have fixed ones: {REMEDY}, and run '
            'rpn_head and roi_head in PyTorch on its maps'
        )
    return (
        f"part='all' is for segmentors, one-stage detectors and classifiers, "
        f'but {kind} has no head that gives raw outputs of maps alone: '
        f'{REMEDY}'
    )
