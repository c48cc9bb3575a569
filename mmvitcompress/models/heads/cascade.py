"""The CASCADE decoder: cascaded attention over a pyramid of maps.

Rahman and Marculescu, Medical Image Segmentation via Cascaded Attention
Decoding, WACV 2023. Plain torch; ``cascade_head`` makes a head of it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REDUCTION = 16  # of the channels inside channel attention
_KERNEL = 7  # of spatial attention


def conv_norm_act(
    in_channels: int, out_channels: int, kernel_size: int
) -> nn.Sequential:
    """Convolution that keeps the size, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class AttentionGate(nn.Module):
    """Weighs each position of a skip map by what the decoder knows there.

    ``x · σ(BN(ψ(ReLU(BN(W_g g) + BN(W_x x)))))`` of a gating map g and a skip
    map x of as many channels; all convolutions are 1×1.
    """

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner)
        )
        self.skip = nn.Sequential(
            nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner)
        )
        self.weight = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1))

    def forward(self, gate: Tensor, skip: Tensor) -> Tensor:
        """Two maps (B, C, H, W) → the second one, weighted."""
        mixed = F.relu(self.gate(gate) + self.skip(skip))
        return skip * self.weight(mixed).sigmoid()


class ChannelAttention(nn.Module):
    """Weighs channels: ``x · σ(MLP(max x) + MLP(mean x))``, over positions."""

    def __init__(self, channels: int):
        super().__init__()
        inner = max(1, channels // REDUCTION)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same, weighted."""
        dims = (2, 3)
        weight = self.mlp(x.mean(dims, True)) + self.mlp(x.amax(dims, True))
        return x * weight.sigmoid()


class SpatialAttention(nn.Module):
    """Weighs positions: ``x · σ(conv7×7([mean x, max x]))``, over channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, _KERNEL, padding=_KERNEL // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same, weighted."""
        summary = torch.cat([x.mean(1, True), x.amax(1, True)], 1)
        return x * self.conv(summary).sigmoid()


class CascadeDecoder(nn.Module):
    """From the coarsest map to the finest, one stage for each.

    The coarsest goes through a convolutional attention module: channel
    attention, spatial attention and two 3×3 convolutions. Each further stage
    upsamples what it gets (nearest, 3×3 convolution), gates the skip map by
    it, concatenates both and has such a module of its own. As in the authors'
    code, all stages share one spatial attention.

    Args:
        in_channels: Of the maps, the finest one first.
        widths: Of the stages, likewise. Where a width is not that of the map,
            a 1×1 convolution leads over **(ours)**: the paper's encoders have
            the widths of its decoder, (64, 128, 320, 512).
    """

    def __init__(self, in_channels: Sequence[int], widths: Sequence[int]):
        super().__init__()
        top = len(widths) - 1
        self.laterals = nn.ModuleList(
            nn.Conv2d(given, width, 1)
            # the coarsest map always goes through one
            if given != width or level == top
            else nn.Identity()
            for level, (given, width) in enumerate(zip(in_channels, widths))
        )
        self.ups, self.gates = nn.ModuleList(), nn.ModuleList()
        self.channel_attentions = nn.ModuleList()
        self.blocks = nn.ModuleList()
        self.spatial_attention = SpatialAttention()
        for level, width in enumerate(widths):
            merged = width
            if level < top:
                merged = 2 * width
                self.ups.append(conv_norm_act(widths[level + 1], width, 3))
                inner = widths[level - 1] if level else width // 2
                self.gates.append(AttentionGate(width, max(1, inner)))
            self.channel_attentions.append(ChannelAttention(merged))
            self.blocks.append(
                nn.Sequential(
                    conv_norm_act(merged, width, 3),
                    conv_norm_act(width, width, 3),
                )
            )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, C_i, H_i, W_i), the finest first → the stages' outputs.

        Returns:
            (B, widths[i], H_i, W_i) for each level, the finest first.
        """
        maps = [conv(x) for conv, x in zip(self.laterals, maps)]
        level = len(maps) - 1
        outputs = [self._attend(maps[level], level)]
        while level:
            level -= 1
            skip = maps[level]
            x = F.interpolate(outputs[0], size=skip.shape[2:], mode='nearest')
            x = self.ups[level](x)
            x = torch.cat([self.gates[level](x, skip), x], 1)
            outputs.insert(0, self._attend(x, level))
        return tuple(outputs)

    def _attend(self, x: Tensor, level: int) -> Tensor:
        x = self.spatial_attention(self.channel_attentions[level](x))
        return self.blocks[level](x)
