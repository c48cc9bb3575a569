"""The blocks of a plain Vision Transformer, with widths of their own.

Parameter names are timm's, so that its checkpoints load as they are.
"""

from collections.abc import Callable

import torch.nn.functional as F
from timm.layers import DropPath, LayerScale, Mlp, trunc_normal_
from torch import Tensor, nn

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.windows import Windows
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.layers.attend import attend
from mmvitcompress.models.layers.windowed import windowed_attention
from mmvitcompress.tokens import TokenState
from mmvitcompress.tokens.method import Attended


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Stochastic depth of each block, from 0 up to ``rate`` at the last.

    Raises:
        ConfigError: If the rate is no probability below 1.
    """
    if not 0 <= rate < 1:
        raise ConfigError(f'drop_path_rate must lie in [0, 1), but got {rate}')
    # plain numbers: tensors on the meta device could not be read
    return [rate * block / max(depth - 1, 1) for block in range(depth)]


def init_linears(blocks: nn.Module) -> None:
    """Initialise linear layers as ViTs do, from a normal of 0.02."""
    for module in blocks.modules():
        if isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


Reduce = Callable[[Tensor, Attended], tuple[Tensor, TokenState]]
"""Takes tokens and what their attention saw; returns fewer and their state."""


class Attention(nn.Module):
    """Multi-head self-attention whose Q/K and V widths may differ.

    One projection makes Q, K and V; its rows are laid out as [Q | K | V], each
    of them head by head, which for equal widths is timm's layout.

    Args:
        dim: Embedding width D.
        num_heads: Number of heads h.
        qk_dim: Width of queries and keys in each head.
        v_dim: Width of values in each head.
        scale: Softmax scale. Pruning doesn't change it: 1/√d of the original
            head width d.
        qkv_bias: Whether the projection has a bias. Defaults to True.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qk_dim: int,
        v_dim: int,
        scale: float,
        qkv_bias: bool = True,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.qk_dim = qk_dim
        self.v_dim = v_dim
        self.scale = scale
        self.split = [num_heads * width for width in (qk_dim, qk_dim, v_dim)]
        self.qkv = nn.Linear(dim, sum(self.split), bias=qkv_bias)
        self.proj = nn.Linear(num_heads * v_dim, dim)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        windows: Windows | None = None,
        observe: bool = False,
    ) -> Tensor | tuple[Tensor, Attended]:
        """(B, n, D) → (B, n, D).

        Args:
            x: Tokens (B, n, D).
            bias: Added to the logits before the softmax; of a shape that
                broadcasts to (B, h, n, n). Defaults to None.
            windows: Into which windows patches are divided, without a bias.
                Defaults to None: all tokens attend to all.
            observe: Whether to return what token methods may ask for, too.
                Defaults to False.
        """
        qkv = self.qkv(x)
        q, k, v = self._heads(qkv)
        if bias is not None:
            bias = bias.to(q.dtype)  # which autocast may have chosen
        if windows is not None:
            x = windowed_attention(qkv, windows, self._heads, self.scale)
        else:
            x = attend(q, k, v, bias, self.scale)
            x = x.transpose(1, 2).flatten(2)
        x = self.proj(x)
        return (x, Attended(q, k, self.scale, bias)) if observe else x

    def _heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """Q, K, V, each (B, h, n, width): views into one projection."""
        return tuple(
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part in qkv.split(self.split, dim=2)
        )

    def extra_repr(self) -> str:
        return (
            f'num_heads={self.num_heads}, qk_dim={self.qk_dim}, '
            f'v_dim={self.v_dim}, scale={self.scale:.4g}'
        )


class Block(nn.Module):
    """Pre-norm transformer block number ``layer``, from 1, of an arch."""

    def __init__(self, arch: ViTArch, layer: int, drop_path: float = 0.0):
        super().__init__()
        dim = arch.embed_dim
        qk_dim, v_dim, mlp_dim = arch.widths(layer)
        self.skip_scale = arch.skip_scale
        self.norm1 = nn.LayerNorm(dim, eps=arch.norm_eps)
        self.attn = Attention(
            dim,
            arch.heads_in(layer),
            qk_dim,
            v_dim,
            scale=arch.head_dim**-0.5,
            qkv_bias=arch.qkv_bias,
        )
        self.ls1 = LayerScale(dim) if arch.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=arch.norm_eps)
        self.mlp = Mlp(dim, hidden_features=mlp_dim)
        self.ls2 = LayerScale(dim) if arch.layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        windows: Windows | None = None,
        reduce: Reduce | None = None,
    ) -> Tensor | tuple[Tensor, TokenState]:
        """(B, n, D) → (B, m, D).

        Args:
            x: Tokens (B, n, D).
            bias: See :class:`Attention`.
            windows: See there.
            reduce: Leaves fewer tokens between attention and MLP; their state
                is then returned as well. Defaults to None.
        """
        state = None
        if reduce is None:
            y = self.attn(self.norm1(x), bias, windows)
            x = x + self._branch(self.ls1(y))
        else:
            y, attended = self.attn(self.norm1(x), bias, windows, True)
            x, state = reduce(x + self._branch(self.ls1(y)), attended)
        x = x + self._branch(self.ls2(self.mlp(self.norm2(x))))
        return x if reduce is None else (x, state)

    def _branch(self, x: Tensor) -> Tensor:
        x = self.drop_path(x)
        return x if self.skip_scale == 1 else x / self.skip_scale


class LinearStem(nn.Module):
    """One strided convolution: each patch is projected by itself."""

    def __init__(self, arch: ViTArch):
        super().__init__()
        size = arch.patch_size
        self.proj = nn.Conv2d(arch.in_chans, arch.embed_dim, size, size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H·p, W·p) → (B, D, H, W)."""
        return self.proj(x)


class ConvStem(nn.Module):
    """LV-ViT's stem: three convolutions, then the patch projection."""

    def __init__(self, arch: ViTArch):
        super().__init__()
        width = arch.stem_dim
        half = arch.patch_size // 2
        self.conv1 = nn.Conv2d(arch.in_chans, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.proj = nn.Conv2d(width, arch.embed_dim, half, half)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H·p, W·p) → (B, D, H, W)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return self.proj(x)


STEMS = {'linear': LinearStem, 'conv': ConvStem}
