"""Mask2Former's pixel decoder, faster on CPUs."""

from mmdet.models.layers import MSDeformAttnPixelDecoder

from mmvitcompress.models.fast.conv import use_fast_convs
from mmvitcompress.models.fast.deformable_attention import (
    use_fast_deformable_attention,
)
from mmvitcompress.registry import MODELS


@MODELS.register_module()
class FastMSDeformAttnPixelDecoder(MSDeformAttnPixelDecoder):
    """MMDetection's ``MSDeformAttnPixelDecoder`` with the same arguments,
    state dict and numbers, up to rounding.

    On CPUs deformable attention adds up rows of a table
    (:mod:`~mmvitcompress.models.fast.deformable_attention`) and, at inference,
    convolutions run as :class:`~mmvitcompress.models.fast.conv.FastConv2d`;
    on other devices it is MMDetection's own.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        use_fast_deformable_attention(self)
        use_fast_convs(self)
