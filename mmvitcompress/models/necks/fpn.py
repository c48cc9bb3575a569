"""Pyramid and FPN of a plain ViT in one, up to the FPN's sums on few tokens.

What the pyramid does last is a transposed convolution whose kernel is its
stride, and what the FPN does first is a 1×1 convolution. Both are linear and
work token by token, so they are one product with the product of their
weights, on merged tokens; maps are restored after it, with the FPN's
channels.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, Sequential
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.fast.conv_modules import run_conv_module
from mmvitcompress.models.necks.pyramid import UnmergePyramid
from mmvitcompress.registry import MODELS
from mmvitcompress.tokens import TokenMap
from mmvitcompress.utils.checks import check_extent

MORE = 8
"""Outputs that there may be beyond the levels, each half of the one before."""


@MODELS.register_module()
class UnmergeFPN(Sequential):
    """``[UnmergePyramid, FPN]``, with the same numbers and state dict.

    Equal to a neck that is the list of
    :class:`~mmvitcompress.models.necks.pyramid.UnmergePyramid` and mmseg's or
    mmdet's ``FPN`` without norm and activation: outputs and gradients, up to
    rounding. Outputs that have no level of their own are its coarsest,
    halved, as in Mask R-CNN.

    Args:
        embed_dim: Channels C of all levels.
        out_channels: Channels O of the outputs.
        num_outs: Number of outputs, as many as levels or some more. Defaults
            to one for each level.
        rescales: See ``UnmergePyramid``. Defaults to (4, 2, 1, 0.5).
        norm_cfg: See ``UnmergePyramid``. Defaults to SyncBN.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        embed_dim: int,
        out_channels: int,
        num_outs: int | None = None,
        rescales: Sequence[float] = (4, 2, 1, 0.5),
        norm_cfg: dict | None = None,
    ):
        levels = len(rescales)
        check_extent('out_channels', out_channels)
        num_outs = levels if num_outs is None else num_outs
        if not levels <= num_outs <= levels + MORE:
            raise ConfigError(
                f'num_outs must lie in {levels}..{levels + MORE}, as there '
                f'are {levels} levels, but got {num_outs}'
            )
        super().__init__(
            UnmergePyramid(embed_dim, rescales, norm_cfg),
            FPNOfLaterals(embed_dim, out_channels, levels, num_outs),
        )

    def forward(
        self, inputs: Sequence[TokenMap | Tensor]
    ) -> tuple[Tensor, ...]:
        """Token maps or maps (B, C, H, W) of the backbone → (B, O, H·r, W·r)
        for each of ``rescales``, and further outputs."""
        pyramid, fpn = self
        return fpn(pyramid(inputs, fpn.lateral_convs))


class FPNOfLaterals(BaseModule):
    """What an FPN does with maps after its lateral convolutions."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        levels: int,
        num_outs: int,
    ):
        # as the FPNs of mmseg and mmdet start
        super().__init__(
            dict(type='Xavier', layer='Conv2d', distribution='uniform')
        )
        self.num_outs = num_outs
        self.lateral_convs = nn.ModuleList(
            ConvModule(in_channels, out_channels, 1, act_cfg=None)
            for _ in range(levels)
        )
        self.fpn_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, act_cfg=None)
            for _ in range(levels)
        )

    def forward(self, laterals: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """(B, O, H_i, W_i), the finest first → as many, and further ones."""
        maps = list(laterals)
        for fine in reversed(range(len(maps) - 1)):
            size = maps[fine].shape[2:]
            maps[fine] = maps[fine] + F.interpolate(maps[fine + 1], size)
        maps = [
            run_conv_module(module, x)
            for module, x in zip(self.fpn_convs, maps)
        ]
        while len(maps) < self.num_outs:
            maps.append(F.max_pool2d(maps[-1], 1, stride=2))
        return tuple(maps)
