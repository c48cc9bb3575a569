"""The blocks of a plain Vision Transformer, with widths of their own.

Parameter names are timm's, so that its checkpoints load as they are.
"""

from collections.abc import Callable
from functools import partial

import torch
from timm.layers import (
    DropPath,
    GluMlp,
    LayerScale,
    Mlp,
    QuickGELU,
    trunc_normal_,
)
from torch import Tensor, nn

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.windows import Windows
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.layers.attend import attend
from mmvitcompress.models.layers.rotary import Turns, spread_pairs, turned
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


ACTIVATION_LAYERS: dict[str, Callable[[], nn.Module]] = {
    'gelu': nn.GELU,
    'gelu_tanh': partial(nn.GELU, approximate='tanh'),
    'quick_gelu': QuickGELU,
}
"""Activations by their names in an arch."""

Reduce = Callable[[Tensor, Attended], tuple[Tensor, TokenState]]
"""Takes tokens and what their attention saw; returns fewer and their state."""


class Attention(nn.Module):
    """Multi-head self-attention whose Q/K and V widths may differ.

    One projection makes Q, K and V; its rows are laid out as [Q | K | V], each
    of them head by head, which for equal widths is timm's layout.

    Where rotary positions turn Q and K and some pairs of channels were pruned,
    a buffer ``rope_index`` (heads, pairs) says which ones each head has kept.

    Args:
        dim: Embedding width D.
        num_heads: Number of heads h.
        qk_dim: Width of queries and keys in each head.
        v_dim: Width of values in each head.
        scale: Softmax scale. Pruning doesn't change it: 1/√d of the original
            head width d.
        qkv_bias: Whether the projection has a bias. Defaults to True.
        norm_eps: Epsilon of a LayerNorm of all heads' results. Defaults to
            None: there is none.
        qk_norm_eps: Epsilon of LayerNorms of each head's Q and K. Defaults to
            None: there are none.
        pairs: Pairs of channels that rotary positions turned in each head
            before pruning. Defaults to None: they turn none.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qk_dim: int,
        v_dim: int,
        scale: float,
        qkv_bias: bool = True,
        norm_eps: float | None = None,
        qk_norm_eps: float | None = None,
        pairs: int | None = None,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.qk_dim = qk_dim
        self.v_dim = v_dim
        self.scale = scale
        self.pairs = pairs
        self.split = [num_heads * width for width in (qk_dim, qk_dim, v_dim)]
        self.qkv = nn.Linear(dim, sum(self.split), bias=qkv_bias)
        self.q_norm, self.k_norm = (
            None
            if qk_norm_eps is None
            else nn.LayerNorm(qk_dim, eps=qk_norm_eps)
            for _ in 'qk'
        )
        attended = num_heads * v_dim
        self.norm = None
        if norm_eps is not None:
            self.norm = nn.LayerNorm(attended, eps=norm_eps)
        self.proj = nn.Linear(attended, dim)
        index = None
        if pairs is not None and qk_dim < 2 * pairs:
            index = spread_pairs(num_heads, qk_dim // 2, pairs)
        self.register_buffer('rope_index', index)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        windows: Windows | None = None,
        observe: bool = False,
        turns: Turns | None = None,
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
            turns: Rotary positions of the tokens. Defaults to None.
        """
        qkv = self.project(x)
        q, k, v = self._heads(qkv)
        if turns is not None:
            q, k = (turned(x, turns, self.rope_index) for x in (q, k))
        if bias is not None:
            bias = bias.to(q.dtype)  # which autocast may have chosen
        if windows is not None:
            if turns is not None:
                parts = (x.transpose(1, 2).flatten(2) for x in (q, k, v))
                qkv = torch.cat([*parts], 2)
            x = windowed_attention(qkv, windows, self._heads, self.scale)
        else:
            x = attend(q, k, v, bias, self.scale)
            x = x.transpose(1, 2).flatten(2)
        x = self.proj(x if self.norm is None else self.norm(x))
        return (x, Attended(q, k, self.scale, bias)) if observe else x

    def project(self, x: Tensor) -> Tensor:
        """Tokens (B, n, D) → rows [Q | K | V] (B, n, C), normalised."""
        qkv = self.qkv(x)
        if self.q_norm is None:
            return qkv
        q, k, v = qkv.split(self.split, dim=2)
        q, k = (
            norm(part.unflatten(2, (self.num_heads, -1))).flatten(2)
            for norm, part in ((self.q_norm, q), (self.k_norm, k))
        )
        # norms are in single precision under autocast
        return torch.cat([q.to(v.dtype), k.to(v.dtype), v], 2)

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
            arch.num_heads,
            qk_dim,
            v_dim,
            scale=arch.head_dim**-0.5,
            qkv_bias=arch.qkv_bias,
            norm_eps=arch.norm_eps if arch.attn_norm else None,
            qk_norm_eps=arch.norm_eps if arch.qk_norm else None,
            pairs=arch.head_dim // 2 if arch.rope else None,
        )
        self.ls1 = LayerScale(dim) if arch.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=arch.norm_eps)
        self.mlp = _mlp(arch, mlp_dim)
        self.ls2 = LayerScale(dim) if arch.layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        windows: Windows | None = None,
        reduce: Reduce | None = None,
        turns: Turns | None = None,
    ) -> Tensor | tuple[Tensor, TokenState]:
        """(B, n, D) → (B, m, D).

        Args:
            x: Tokens (B, n, D).
            bias: See :class:`Attention`.
            windows: See there.
            reduce: Leaves fewer tokens between attention and MLP; their state
                is then returned as well. Defaults to None.
            turns: See :class:`Attention`.
        """
        state = None
        if reduce is None:
            y = self.attn(self.norm1(x), bias, windows, False, turns)
            x = x + self._branch(self.ls1(y))
        else:
            y, attended = self.attn(self.norm1(x), bias, windows, True, turns)
            x, state = reduce(x + self._branch(self.ls1(y)), attended)
        x = x + self._branch(self.ls2(self.mlp(self.norm2(x))))
        return x if reduce is None else (x, state)

    def _branch(self, x: Tensor) -> Tensor:
        x = self.drop_path(x)
        return x if self.skip_scale == 1 else x / self.skip_scale


def _mlp(arch: ViTArch, hidden: int) -> nn.Module:
    """The MLP of a block; rows of a gated one's ``fc1`` are [gates |
    values]."""
    norm = None
    if arch.mlp_norm:
        norm = partial(nn.LayerNorm, eps=arch.norm_eps)
    if arch.mlp == 'mlp':
        return Mlp(
            arch.embed_dim,
            hidden,
            act_layer=ACTIVATION_LAYERS[arch.act],
            norm_layer=norm,
        )
    return GluMlp(
        arch.embed_dim,
        2 * hidden,
        act_layer=nn.SiLU,
        norm_layer=norm,
        gate_last=False,
    )
