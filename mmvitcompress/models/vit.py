"""The compressed ViT itself, free of OpenMMLab.

Data flow: image → padded to whole patches → stem → tokens with position →
blocks, between which tokens are merged or leave → (tokens, state) at the
wanted blocks.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmvitcompress.arch.base import check_patch
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.layers.blocks import STEMS, Block, drop_path_rates
from mmvitcompress.models.layers.positions import resample_position
from mmvitcompress.models.layers.windowed import WindowedBlocks
from mmvitcompress.tokens import (
    PatchSlimmer,
    SoftPatchSlimmer,
    TokenMerge,
    TokenState,
)


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
        final_norm: Whether to build the final LayerNorm. Defaults to True.
        drop_path_rate: Stochastic depth of the last block of the arch; it
            rises linearly from 0 over the blocks. Defaults to 0.
        with_cp: Whether to recompute blocks in the backward pass to save
            memory. Defaults to False.
        soft_slimming: Whether patch slimming only weights the patches while
            training, so that its predictor learns. Defaults to False.
        windowed: Which blocks attend in windows only. Defaults to None: none
            of them.
    """

    def __init__(
        self,
        arch: ViTArch,
        depth: int | None = None,
        final_norm: bool = True,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        soft_slimming: bool = False,
        windowed: WindowedBlocks | None = None,
    ):
        super().__init__()
        depth = arch.depth if depth is None else depth
        dim = arch.embed_dim
        self.arch = arch
        self.num_prefix_tokens = arch.num_prefix_tokens
        self.with_cp = with_cp
        self.windowed = windowed

        self.patch_embed = STEMS[arch.stem](arch)
        self.cls_token = _token(1, dim) if arch.class_token else None
        self.dist_token = _token(1, dim) if arch.dist_token else None
        self.reg_token = (
            _token(arch.reg_tokens, dim) if arch.reg_tokens else None
        )
        self.pos_embed = self._make_pos_embed()
        # set for inference only, and no part of the weights: the embedding of
        # one grid, and the pixel (3, 1, 1) that images are padded with
        self._ready_grid: tuple[int, int] | None = None
        self.register_buffer('_ready_position', None, persistent=False)
        self.register_buffer('_border', None, persistent=False)

        rates = drop_path_rates(drop_path_rate, arch.depth)
        self.blocks = nn.ModuleList(
            Block(arch, layer, rates[layer - 1])
            for layer in range(1, depth + 1)
        )
        # keyed by the index of the block that follows, as ``blocks`` is
        self.token_merging = nn.ModuleDict()
        if arch.token_merging is not None:
            for layer, direction in zip(
                arch.token_merging.layers, arch.token_merging.directions
            ):
                if layer <= depth:
                    self.token_merging[str(layer - 1)] = TokenMerge(
                        dim, direction, arch.token_merging.conv
                    )
        self.patch_slimming = _make_slimmer(arch, depth, soft_slimming)
        self.norm = (
            nn.LayerNorm(dim, eps=arch.norm_eps) if final_norm else None
        )
        self._init_weights()

    def _make_pos_embed(self) -> nn.Parameter | None:
        if self.arch.pos_embed == 'none':
            return None
        height, width = self.arch.pos_grid
        return _token(height * width + self._pos_prefix, self.arch.embed_dim)

    @property
    def _pos_prefix(self) -> int:
        """Prefix tokens that the position embedding has entries for."""
        return self.num_prefix_tokens if self.arch.pos_embed == 'all' else 0

    def _init_weights(self) -> None:
        # merges and stems keep their own initialisation
        for block in self.blocks:
            for module in block.modules():
                if isinstance(module, nn.Linear):
                    trunc_normal_(module.weight, std=0.02)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        for name in ('cls_token', 'dist_token', 'reg_token', 'pos_embed'):
            if getattr(self, name) is not None:
                trunc_normal_(getattr(self, name), std=0.02)

    def forward(
        self, x: Tensor, take: Sequence[int] | None = None
    ) -> list[tuple[Tensor, TokenState]]:
        """Run the blocks that were built.

        Args:
            x: Images (B, 3, H, W).
            take: Blocks, counted from 0, after which tokens are wanted.
                Defaults to the last one that was built.

        Returns:
            For each wanted block the tokens (B, prefix + n, D) and their
            state, in the order of the blocks. The final norm, if it was
            built, is applied to each of them.
        """
        take = (len(self.blocks) - 1,) if take is None else take
        x, state = self.embed(x)
        outputs = []
        for index, block in enumerate(self.blocks):
            if str(index) in self.token_merging:
                merge = self.token_merging[str(index)]
                x, state = merge(x, state, self.num_prefix_tokens)
            bias = None
            if self.patch_slimming is not None:
                bias = self.patch_slimming.bias(
                    index + 1, state, self.num_prefix_tokens
                )
            windows = self.windowed and self.windowed.at(index, state.grid)
            x = self._run(block, x, bias, windows)
            if index in take:
                # before slimming: a patch that leaves after this block still
                # has its feature here
                outputs.append((x, state))
            if self.patch_slimming is not None:
                x, state = self.patch_slimming.after(
                    index + 1, x, state, self.num_prefix_tokens
                )
        if self.norm is not None:
            outputs = [(self.norm(tokens), s) for tokens, s in outputs]
        return outputs

    def _run(self, block: nn.Module, *inputs, **options):
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False, **options)
        return block(*inputs, **options)

    def embed(self, x: Tensor) -> tuple[Tensor, TokenState]:
        """Images (B, 3, H, W) → tokens (B, prefix + N, D) with position."""
        height, width = x.shape[-2:]
        size = self.arch.patch_size
        check_patch((height, width), size)
        if height % size or width % size:
            x = self._pad(x, (0, -width % size, 0, -height % size))
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
        return x, TokenState.start(grid)

    def _pad(self, x: Tensor, sides: tuple[int, ...]) -> Tensor:
        if self._border is None:
            return F.pad(x, sides)
        return F.pad(x - self._border, sides) + self._border

    def _position(self, grid: tuple[int, int]) -> Tensor | None:
        """Position embedding for a grid; interpolated if need be.

        Anew in each call, since nothing tells for sure whether the parameter
        has changed: fused optimizers and what writes through ``.data``, such
        as MMEngine's EMAHook, leave its version as it was. On a CPU that is
        0.2 % of the time of DeiT-Small at 512x512 pixels.
        """
        if self.pos_embed is None or grid == self.arch.pos_grid:
            return self.pos_embed
        if grid == self._ready_grid and not self.pos_embed.requires_grad:
            return self._ready_position
        return self._resample(grid)

    @torch.no_grad()
    def prepare_position(self, shape: int | tuple[int, int]) -> None:
        """Keep the position embedding for images of one size (H, W).

        For a model that learns no more, such as
        :func:`~mmvitcompress.deploy.optimize.optimize_for_inference` makes:
        what is kept doesn't follow the parameter that it is made of. It is
        left unused once that requires gradients again, and dropped when
        weights are loaded.

        Raises:
            ConfigError: If the model is in training mode, or its position
                embedding requires gradients.
        """
        if self.pos_embed is None:
            return
        if self.training or self.pos_embed.requires_grad:
            raise ConfigError(
                'prepare_position keeps an embedding that would not follow '
                'training: call model.eval().requires_grad_(False) first'
            )
        self._ready_grid = self.arch.grid(shape)
        self._ready_position = self._resample(self._ready_grid)

    def _resample(self, grid: tuple[int, int]) -> Tensor:
        return resample_position(
            self.pos_embed, self.arch.pos_grid, grid, self._pos_prefix
        )

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        self._ready_grid = self._ready_position = None
        super()._load_from_state_dict(*args, **kwargs)


def _make_slimmer(arch: ViTArch, depth: int, soft: bool) -> nn.Module | None:
    slimming = arch.patch_slimming
    if soft and slimming is None:
        raise ConfigError(
            'soft_slimming trains a life predictor, but the arch has none: '
            'give patch_slimming, for example dict(keep_rate=0.7)'
        )
    if soft:
        if slimming.base_layer >= depth:
            raise ConfigError(
                'soft_slimming weights patches in the blocks after '
                f'patch_slimming.base_layer ({slimming.base_layer}), but only '
                f'{depth} blocks are built: take a later output'
            )
        return SoftPatchSlimmer(
            arch.embed_dim, slimming, arch.depth, arch.norm_eps
        )
    if slimming is None or slimming.base_layer > depth:
        return None
    return PatchSlimmer(arch.embed_dim, slimming, arch.norm_eps)


def _token(count: int, dim: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(1, count, dim))
