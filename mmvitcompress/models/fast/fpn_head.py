"""Semantic FPN's head with fewer operations, same weights and numbers."""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import FPNHead
from mmseg.models.utils import Upsample, resize
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import statically_known_true

from mmvitcompress.models.fast.conv import use_fast_convs
from mmvitcompress.models.fast.conv_modules import run_conv_module
from mmvitcompress.models.layers.hooked import has_hooks
from mmvitcompress.registry import MODELS


@MODELS.register_module()
class FastFPNHead(FPNHead):
    """MMSegmentation's FPNHead, computed in another order.

    Upsampling is linear, so maps that have come to the same size are summed
    up before they are upsampled for the last time. A branch of the first
    one's stride has no upsampling and shares nothing. At inference on a CPU
    batch norm is folded and convolutions run as
    :class:`~mmvitcompress.models.fast.conv.FastConv2d`. Arguments, state
    dict, outputs and gradients are those of FPNHead, up to rounding. Parts
    that carry hooks are called as FPNHead calls them.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        use_fast_convs(self.conv_seg)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps of several strides → logits (B, classes, H, W) at the
        first's."""
        inputs = self._transform_inputs(inputs)
        total = self._run(self.scale_heads[0], inputs[0])
        last: list[tuple[Tensor, nn.Module]] = []
        for head, x in zip(self.scale_heads[1:], inputs[1:]):
            upsample = head[-1]
            if not isinstance(upsample, Upsample) or (
                has_hooks(head) or has_hooks(upsample)
            ):
                total = total + self._resize(self._run(head, x), total)
                continue
            x = self._run(head[:-1], x)
            for place, (other, _) in enumerate(last):
                if _same_size(x, other):
                    last[place] = (x + other, upsample)
                    break
            else:
                last.append((x, upsample))
        for x, upsample in last:
            total = total + self._resize(upsample(x), total)
        return self.cls_seg(total)

    def _resize(self, x: Tensor, like: Tensor) -> Tensor:
        return resize(
            x,
            size=like.shape[2:],
            mode='bilinear',
            align_corners=self.align_corners,
        )

    def _run(self, head: nn.Sequential, x: Tensor) -> Tensor:
        if has_hooks(head):
            return head(x)
        for step in head:
            is_conv = isinstance(step, ConvModule)
            x = run_conv_module(step, x) if is_conv else step(x)
        return x


def _same_size(x: Tensor, other: Tensor) -> bool:
    """Whether two maps are of one size, for sure where sizes are symbols."""
    return all(map(_equal, x.shape[2:], other.shape[2:]))


def _equal(side: int, other: int) -> bool:
    return statically_known_true(side == other)
