"""The compressed ViT itself, free of OpenMMLab.

Data flow: image → padded to whole patches → stem → tokens with position →
blocks, between and within which tokens are merged or leave → (tokens, state)
at the wanted blocks.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmvitcompress.arch.base import check_images, check_memory
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.models.layers.blocks import (
    Block,
    drop_path_rates,
    init_linears,
)
from mmvitcompress.models.layers.positions import resample_position
from mmvitcompress.models.layers.rotary import RotaryPositions, Turns
from mmvitcompress.models.layers.stems import STEMS
from mmvitcompress.tokens import TokenMethod, TokenState
from mmvitcompress.tokens.losses import report_losses
from mmvitcompress.tokens.method import Attended, add_methods


class ViT(nn.Module):
    """Vision Transformer built from a :class:`ViTArch`.

    ``torch.compile`` makes one graph of it without breaks, forward and
    backward; with ``dynamic=True`` one for batches and images of any size.
    Graphs of their own are needed by a batch of one, by the grid that the
    position embedding is made for, by images that are padded to whole
    patches, and by grids of an odd height or width where they are merged.

    Args:
        arch: Its shape.
        depth: How many of its blocks to build. Defaults to all.
        final_norm: Whether to build the final LayerNorm: True for all outputs,
            'last' for that of the arch's last block. Defaults to True.
        drop_path_rate: Stochastic depth of the last block of the arch; it
            rises linearly from 0 over the blocks. Defaults to 0.
        with_cp: Whether to recompute blocks in the backward pass to save
            memory. Defaults to False.
        training: Whether token methods that have a way of their own to
            learn take it while training: patch slimming then only weights the
            patches, so that its predictor learns. Defaults to False.
    """

    def __init__(
        self,
        arch: ViTArch,
        depth: int | None = None,
        final_norm: bool | Literal['last'] = True,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        training: bool = False,
    ):
        super().__init__()
        check_memory(arch)
        depth = arch.depth if depth is None else depth
        dim = arch.embed_dim
        self.arch = arch
        self.num_prefix_tokens = arch.num_prefix_tokens
        self.with_cp = with_cp

        self.patch_embed = STEMS[arch.stem](arch)
        self.cls_token = _token(1, dim) if arch.class_token else None
        self.dist_token = _token(1, dim) if arch.dist_token else None
        self.reg_token = (
            _token(arch.reg_tokens, dim) if arch.reg_tokens else None
        )
        height, width = arch.pos_grid
        self.pos_embed = (
            None
            if arch.pos_embed == 'none'
            else _token(height * width + self._pos_prefix, dim)
        )
        self.norm_pre = (
            nn.LayerNorm(dim, eps=arch.norm_eps)
            if arch.pre_norm
            else nn.Identity()
        )
        self.rope = (
            None
            if arch.rope is None
            else RotaryPositions(arch.rope, arch.head_dim)
        )
        rates = drop_path_rates(drop_path_rate, arch.depth)
        self.blocks = nn.ModuleList(
            Block(arch, layer, rates[layer - 1])
            for layer in range(1, depth + 1)
        )
        self.method_keys = add_methods(self, arch, depth, training)
        self.norm = (
            nn.LayerNorm(dim, eps=arch.norm_eps) if final_norm else None
        )
        self.first_normed = arch.depth - 1 if final_norm == 'last' else 0
        self._init_weights()

    @property
    def methods(self) -> tuple[TokenMethod, ...]:
        """The token methods of the blocks that were built."""
        return tuple(getattr(self, key) for key in self.method_keys)

    @property
    def _pos_prefix(self) -> int:
        """Prefix tokens that the position embedding has entries for."""
        return self.num_prefix_tokens if self.arch.pos_embed == 'all' else 0

    def _init_weights(self) -> None:
        # merges and stems keep their own initialisation
        init_linears(self.blocks)
        for name in ('cls_token', 'dist_token', 'reg_token', 'pos_embed'):
            if getattr(self, name) is not None:
                trunc_normal_(getattr(self, name), std=0.02)

    def forward(
        self, x: Tensor, take: Sequence[int] | None = None
    ) -> list[tuple[Tensor, TokenState]]:
        """Run the blocks, up to the last one that is wanted.

        Args:
            x: Images (B, 3, H, W).
            take: Blocks, counted from 0 and each once, after which tokens are
                wanted. Defaults to the last one that was built.

        Returns:
            For each wanted block the tokens (B, prefix + n, D) and their
            state, in the order of the blocks, after the final norm where
            :meth:`norm_of` says so.
        """
        take = (len(self.blocks) - 1,) if take is None else take
        norms = map(self.norm_of, sorted(take))
        return [
            (norm(tokens) if norm else tokens, state)
            for norm, (tokens, state) in zip(
                norms, self.intermediates(x, take)
            )
        ]

    def intermediates(
        self, x: Tensor, take: Sequence[int]
    ) -> list[tuple[Tensor, TokenState]]:
        """Run the blocks as :meth:`forward` does, without the final norm."""
        x, state = self.embed(x)
        methods, outputs = self.methods, []
        for index, block in enumerate(self.blocks):
            layer = index + 1
            for method in methods:
                x, state = method.before(layer, x, state)
            if self.rope is not None and state.tables is None:
                state = state.having(tables=self._turns(x, state))
            bias = _bias(methods, layer, state)
            windows = self.arch.windows(index, state.grid)
            within = [m for m in methods if layer in m.within]
            if within:
                reduce = partial(_reduce, within, layer, state)
                inputs = x, bias, windows, reduce, state.tables
                x, state = self._run(block, *inputs)
            else:
                inputs = x, bias, windows, None, state.tables
                x = self._run(block, *inputs)
            for method in methods:
                x, state = method.rejoin(layer, x, state)
            if index in take:
                # before ``after``: a patch that leaves after this block still
                # has its feature here
                outputs.append((x, state.having()))
            for method in methods:
                x, state = method.after(layer, x, state)
            if len(outputs) == len(take):
                break
        if self.training:
            report_losses(methods, state)
        return outputs

    def norm_of(self, index: int) -> nn.Module | None:
        """What the output of a block, counted from 0, goes through."""
        return self.norm if index >= self.first_normed else None

    def cut(self, depth: int) -> None:
        """Remove all blocks but the first ``depth``, and what acts in them."""
        self.blocks = self.blocks[:depth]
        for method in self.methods:
            for layer in range(depth + 1, self.arch.depth + 1):
                for name in method.parts_of(layer):
                    delattr(method, name)

    def _run(self, block: nn.Module, *inputs):
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def embed(self, x: Tensor) -> tuple[Tensor, TokenState]:
        """Images (B, 3, H, W) → tokens (B, prefix + N, D) with position."""
        check_images(x.shape, self.arch)
        height, width = x.shape[2:]
        size = self.arch.patch_size
        if height % size or width % size:
            x = F.pad(x, (0, -width % size, 0, -height % size))
        x = self.patch_embed(x)
        # of the tensor itself: where sizes are symbols, nothing is to prove
        grid = tuple(x.shape[2:])
        x = x.flatten(2).transpose(1, 2)  # (B, N, D)
        pos = self._position(grid)
        if pos is not None and not self._pos_prefix:
            x = x + pos
        prefix = [
            token.expand(x.shape[0], -1, -1)
            for token in (self.cls_token, self.dist_token, self.reg_token)
            if token is not None
        ]
        if prefix:
            x = torch.cat([*prefix, x], 1)
        if pos is not None and self._pos_prefix:
            x = x + pos
        return self.norm_pre(x), TokenState.start(grid)

    def _turns(self, x: Tensor, state: TokenState) -> Turns:
        """Rotary positions of tokens (B, prefix + n, D), for all blocks that
        meet them."""
        prefix = self.num_prefix_tokens
        places = self.rope.of_tokens(x, state, prefix)
        for method in self.methods:
            places = method.stand(places, state)
        return self.rope(places, prefix, x.dtype)

    def _position(self, grid: tuple[int, int]) -> Tensor | None:
        """Position embedding for a grid; interpolated if need be.

        Anew in each call (0.2 % of a forward pass): fused optimizers and what
        writes through ``.data`` leave the parameter's version as it was.
        """
        if self.pos_embed is None or grid == self.arch.pos_grid:
            return self.pos_embed
        return resample_position(
            self.pos_embed, self.arch.pos_grid, grid, self._pos_prefix
        )


def _bias(
    methods: Sequence[TokenMethod], layer: int, state: TokenState
) -> Tensor | None:
    """What methods add to the attention logits of a block."""
    total = None
    for method in methods:
        bias = method.bias(layer, state)
        if bias is not None:
            total = bias if total is None else total + bias
    return total


def _reduce(
    methods: Sequence[TokenMethod],
    layer: int,
    state: TokenState,
    x: Tensor,
    attended: Attended,
) -> tuple[Tensor, TokenState]:
    """What methods do between attention and MLP of a block."""
    for method in methods:
        x, state = method.between(layer, x, state, attended)
    return x, state


def _token(count: int, dim: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(1, count, dim))
