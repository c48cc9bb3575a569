"""The compressed Swin Transformer itself, free of OpenMMLab.

Data flow: image → padded to whole patches → patch grid (B, H, W, D) → stages;
in stage 3 tokens are merged before the wanted blocks, and stage 4 goes on with
the merged grid → (tokens, state) of the wanted stages.

Parameter names are timm's, so that its checkpoints load as they are.
"""

from collections.abc import Sequence
from itertools import islice
from operator import index

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp, trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmvitcompress.arch.checks import check_images, check_memory
from mmvitcompress.arch.swin import MERGE_STAGE, SwinArch
from mmvitcompress.models.layers.blocks import (
    drop_path_rates,
    init_linears,
)
from mmvitcompress.models.layers.window_attention import WindowAttention
from mmvitcompress.models.layers.windows import (
    LayoutCache,
    WindowLayout,
    cut,
    join,
)
from mmvitcompress.tokens import TokenMethod, TokenState
from mmvitcompress.tokens.grids import merged_grid
from mmvitcompress.tokens.method import Attending, add_methods


class SwinBlock(nn.Module):
    """Pre-norm block with attention in windows; both counts from 0."""

    def __init__(
        self, arch: SwinArch, stage: int, block: int, drop_path: float = 0.0
    ):
        super().__init__()
        dim, heads = arch.dims[stage], arch.num_heads[stage]
        qk_dim, v_dim, mlp_dim = arch.widths(arch.layer(stage, block))
        self.shifted = bool(block % 2)
        self.pad_first = arch.pad_first
        self.norm1 = nn.LayerNorm(dim, eps=arch.norm_eps)
        self.attn = WindowAttention(
            dim,
            heads,
            qk_dim,
            v_dim,
            scale=arch.head_dims[stage] ** -0.5,
            window_size=(
                arch.window_size if arch.has_windows(stage, block) else None
            ),
            qkv_bias=arch.qkv_bias,
        )
        self.norm2 = nn.LayerNorm(dim, eps=arch.norm_eps)
        self.mlp = Mlp(dim, hidden_features=mlp_dim)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, how: WindowLayout | Attending) -> Tensor:
        """Tokens → as many: a grid (B, H, W, D) in windows, or (B, n, D) that
        attend as a token method says."""
        if isinstance(how, Attending):
            attended = self._attend(self.norm1(x), how)
            x = x + self.drop_path(attended * how.scales[0])
            hidden = self.mlp(self.norm2(x))
            return x + self.drop_path(hidden * how.scales[1])
        windows = cut(self.norm1(x), how.windows, self.pad_first)
        attended = self.attn(windows, how)
        attended = join(attended, how.windows, self.pad_first)
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, how: Attending) -> Tensor:
        if how.others is None:
            return self.attn(x, None, x, how.index)
        keys = self.norm1(how.others)
        if how.own:
            keys = torch.cat([x, keys], 1)
        return self.attn(x, None, keys, how.index)


class PatchEmbed(nn.Module):
    """One strided convolution and a norm: (B, 3, H·p, W·p) → (B, H, W, D)."""

    def __init__(self, arch: SwinArch):
        super().__init__()
        size = arch.patch_size
        self.proj = nn.Conv2d(arch.in_chans, arch.embed_dim, size, size)
        self.norm = nn.LayerNorm(arch.embed_dim, eps=arch.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """What stands before a stage: 2×2 tokens become one of twice the width.

    Grids of odd height or width are padded with zeros.
    """

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D) → (B, ⌈H/2⌉, ⌈W/2⌉, 2D)."""
        height, width = x.shape[1:3]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        # (B, H/2, 2, W/2, 2, D); pretrained weights want columns outermost
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x))


class SwinStage(nn.Module):
    """The blocks of one stage (counted from 0) and the patch merging before
    them; the first merges no patches."""

    def __init__(self, arch: SwinArch, stage: int, drop_path: Sequence[float]):
        super().__init__()
        self.downsample = (
            PatchMerging(arch.dims[stage - 1], arch.norm_eps)
            if stage
            else None
        )
        self.blocks = nn.ModuleList(
            SwinBlock(arch, stage, block, rate)
            for block, rate in enumerate(drop_path)
        )


def halved(state: TokenState) -> TokenState:
    """The state after patch merging, on whose grid the next stage runs."""
    return state.having(
        full_grid=merged_grid(state.full_grid, 'symmetric'),
        grid=merged_grid(state.grid, 'symmetric'),
        undo=tuple(record.halved() for record in state.undo),
    )


class Swin(nn.Module):
    """Swin Transformer built from a :class:`SwinArch`.

    Args:
        arch: Its shape.
        stages: How many of its stages to build. Defaults to all.
        final_norm: Whether to build the final LayerNorm. Defaults to True.
        drop_path_rate: Stochastic depth of the last block of the arch; it
            rises linearly from 0 over the blocks. Defaults to 0.
        with_cp: Whether to recompute blocks in the backward pass to save
            memory. Defaults to False.
    """

    def __init__(
        self,
        arch: SwinArch,
        stages: int | None = None,
        final_norm: bool = True,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
    ):
        super().__init__()
        check_memory(arch)
        stages = len(arch.depths) if stages is None else stages
        self.arch = arch
        self.with_cp = with_cp
        self.patch_embed = PatchEmbed(arch)
        rates = iter(drop_path_rates(drop_path_rate, arch.depth))
        self.layers = nn.ModuleList(
            SwinStage(arch, stage, list(islice(rates, arch.depths[stage])))
            for stage in range(stages)
        )
        self.method_keys = ()
        if stages > MERGE_STAGE:
            self.method_keys = add_methods(self, arch, arch.token_depth)
        self.norm = (
            nn.LayerNorm(arch.dims[stages - 1], eps=arch.norm_eps)
            if final_norm
            else None
        )
        self._layouts = LayoutCache(arch.window_size)
        self._init_weights()

    @property
    def methods(self) -> tuple[TokenMethod, ...]:
        """The token methods, all of stage 3."""
        return tuple(getattr(self, key) for key in self.method_keys)

    def _init_weights(self) -> None:
        # merges and the stem keep their own initialisation
        init_linears(self.layers)
        for name, table in self.layers.named_parameters():
            if name.endswith('relative_position_bias_table'):
                trunc_normal_(table, std=0.02)

    def forward(
        self, x: Tensor, take: Sequence[int] | None = None
    ) -> list[tuple[Tensor, TokenState]]:
        """Run the stages that were built.

        Args:
            x: Images (B, 3, H, W).
            take: Stages, counted from 0, whose outputs are wanted. Defaults
                to the last one that was built.

        Returns:
            For each wanted stage the tokens (B, n, D) and their state, in the
            order of the stages. The final norm, if it was built, is applied
            to the last stage's.
        """
        last = len(self.layers) - 1
        take = (last,) if take is None else take
        outputs = self.intermediates(x, take)
        if self.norm is not None and last in take:
            tokens, state = outputs[-1]
            outputs[-1] = self.norm(tokens), state
        return outputs

    def intermediates(
        self, x: Tensor, take: Sequence[int]
    ) -> list[tuple[Tensor, TokenState]]:
        """Run the stages as :meth:`forward` does, without the final norm."""
        x, state = self.embed(x)
        outputs = []
        for i, stage in enumerate(self.layers):
            if stage.downsample is not None:
                x, state = stage.downsample(x), halved(state)
            x = x.flatten(1, 2)
            for layer, block in enumerate(stage.blocks, 1):
                methods = self.methods if i == MERGE_STAGE else ()
                x, state = self._step(block, layer, methods, x, state)
            x = x.unflatten(1, state.grid)
            if i in take:
                outputs.append((x.flatten(1, 2), state))
        return outputs

    def _step(
        self,
        block: SwinBlock,
        layer: int,
        methods: Sequence[TokenMethod],
        x: Tensor,
        state: TokenState,
    ) -> tuple[Tensor, TokenState]:
        """Run block ``layer`` of a stage, and what methods do there:
        (B, n, D) → (B, m, D)."""
        how = None
        for method in methods:
            x, state = method.before(layer, x, state)
            how = how or method.attending(layer, state)
        if how is None:
            x = x.unflatten(1, state.grid)
            windows = self.arch.windows(state.grid, block.shifted)
            how = self._layouts.get(windows, x.device)
        if self.with_cp and torch.is_grad_enabled():
            x = checkpoint(block, x, how, use_reentrant=False)
        else:
            x = block(x, how)
        x = x.flatten(1, -2)
        for method in methods:
            x, state = method.rejoin(layer, x, state)
        return x, state

    def embed(self, x: Tensor) -> tuple[Tensor, TokenState]:
        """Images (B, 3, H, W) → token grid (B, h, w, D)."""
        # whole numbers in compiled graphs, too: each size has its windows, and
        # reasoning about symbolic ones takes compilers minutes
        check_images(x.shape, self.arch)
        height, width = (index(side) for side in x.shape[2:])
        grid = self.arch.grid((height, width))
        size = self.arch.patch_size
        pad_h, pad_w = grid[0] * size - height, grid[1] * size - width
        if pad_h or pad_w:
            x = F.pad(x, (0, pad_w, 0, pad_h))
        return self.patch_embed(x), TokenState.start(grid)

    def __getstate__(self) -> dict:
        # layouts are made anew where they are needed
        layouts = LayoutCache(self.arch.window_size)
        return {**self.__dict__, '_layouts': layouts}
