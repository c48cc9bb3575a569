"""The attention of a Swin's blocks: in windows, or as a token method says.

Parameter names are timm's, so that its checkpoints load as they are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.channels.compactors import CompactedLinear
from mmvitcompress.models.layers.attend import attend
from mmvitcompress.models.layers.blocks import Attention
from mmvitcompress.models.layers.hooked import is_bare
from mmvitcompress.models.layers.windows import WindowLayout


class WindowAttention(Attention):
    """Attention within windows, with a bias for each relative position.

    Arguments are those of ``Attention``, and the edge of the windows that the
    biases are made for; None if a token method says who attends to whom.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qk_dim: int,
        v_dim: int,
        scale: float,
        window_size: int | None,
        qkv_bias: bool = True,
    ):
        super().__init__(dim, num_heads, qk_dim, v_dim, scale, qkv_bias)
        table = None
        if window_size is not None:
            offsets = (2 * window_size - 1) ** 2
            table = nn.Parameter(torch.zeros(offsets, num_heads))
        self.register_parameter('relative_position_bias_table', table)

    def forward(
        self,
        x: Tensor,
        layout: WindowLayout | None,
        keys: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """Attention in windows, or of tokens to given ones, without a bias.

        Args:
            x: Windows (B · windows, N, D), or without a layout tokens
                (B, n, D).
            layout: Of the windows.
            keys: What tokens attend to, (B, m, D).
            index: (G, K): ``x`` are G groups of equal size, one after the
                other, each of which attends to its K of the keys. Defaults to
                None: all attend to all.

        Returns:
            As many tokens as ``x``.
        """
        if layout is None:
            return self._to_keys(x, keys, index)
        return super().forward(x, self._bias(layout, x.shape[0]))

    def _bias(self, layout: WindowLayout, count: int) -> Tensor:
        """(1 or ``count``, h, N, N), what is added to the logits."""
        bias = self.relative_position_bias_table[layout.index]
        bias = bias.permute(2, 0, 1).unsqueeze(0)  # (1, h, N, N)
        if layout.mask is None:
            return bias
        bias = bias + layout.mask.unsqueeze(1)  # (windows, h, N, N)
        return bias.repeat(count // len(bias), 1, 1, 1)

    def _to_keys(
        self, x: Tensor, keys: Tensor, index: Tensor | None
    ) -> Tensor:
        q, kv = self._project(x, keys)
        if index is not None:
            groups = len(index)
            q = q.unflatten(1, (groups, -1)).flatten(0, 1)
            kv = kv.index_select(1, index.flatten())
            kv = kv.unflatten(1, index.shape).flatten(0, 1)
        q, k, v = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part in (q, *kv.split(self.split[1:], 2))
        )
        x = attend(q, k, v, None, self.scale).transpose(1, 2).flatten(2)
        if index is not None:
            x = x.unflatten(0, (-1, groups)).flatten(1, 2)
        return self.proj(x)

    def _project(self, x: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Q of tokens, and [K | V] of keys; each token is projected once, in
        however many groups it is a key."""
        qkv, queries = self.qkv, self.split[0]
        composed = isinstance(qkv, CompactedLinear)
        if is_bare(qkv) and (composed or type(qkv) is nn.Linear):
            weight, bias = qkv.weight, qkv.bias
            if composed:
                weight, bias = qkv.composed()
            sizes = [queries, len(weight) - queries]
            biases = (None, None) if bias is None else bias.split(sizes)
            q, kv = map(F.linear, (x, keys), weight.split(sizes), biases)
            return q, kv
        return qkv(x)[..., :queries], qkv(keys)[..., queries:]
