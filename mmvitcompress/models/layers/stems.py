"""From images to patches: the layers before the blocks of a ViT."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.arch.vit import ViTArch


def _projection(inputs: int, arch: ViTArch, size: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, arch.embed_dim, size, size, bias=arch.patch_bias)


class LinearStem(nn.Module):
    """One strided convolution: each patch is projected by itself."""

    def __init__(self, arch: ViTArch):
        super().__init__()
        self.proj = _projection(arch.in_chans, arch, arch.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H·p, W·p) → (B, D, H, W)."""
        return self.proj(x)


class ConvStem(nn.Module):
    """LV-ViT's stem: three convolutions, then the patch projection."""

    def __init__(self, arch: ViTArch):
        super().__init__()
        width = arch.stem_dim
        self.conv1 = nn.Conv2d(arch.in_chans, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.proj = _projection(width, arch, arch.patch_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H·p, W·p) → (B, D, H, W)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return self.proj(x)


STEMS = {'linear': LinearStem, 'conv': ConvStem}
