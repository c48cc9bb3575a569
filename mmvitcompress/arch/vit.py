"""``ViTArch``: the one description of a (compressed) Vision Transformer.

The backbone is built from it, the exporter writes it, the planner and the MAC
counter read it. It is plain data: JSON in, JSON out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmvitcompress.arch.base import (
    CONVENTIONS,
    Arch,
    check_image,
    patch_grid,
)
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.specs import (
    Grid,
    PatchSlimming,
    TokenMerging,
    fan_in,
    merged_grid,
)
from mmvitcompress.utils.checks import (
    build_spec,
    check_choice,
    check_flag,
    check_positive,
    check_positive_number,
    pair,
    per_block,
)


@dataclass(frozen=True)
class ViTArch(Arch):
    """Shape of a plain Vision Transformer, compressed or not.

    Widths may be given as one number for all blocks or as one for each block;
    they are stored as one for each block.

    Args:
        embed_dim: Width D of the residual stream, in channels.
        depth: Number of blocks L.
        num_heads: Attention heads in each block.
        qk_dims: Width of queries and keys in each head. Defaults to
            ``head_dim``.
        v_dims: Width of values in each head. Defaults to ``head_dim``.
        mlp_dims: Hidden width of the MLP. Defaults to 4 · ``embed_dim``.
        head_dim: Head width before pruning, which sets the softmax scale
            1/√d. Defaults to ``embed_dim // num_heads``.
        patch_size: Edge of a patch, in pixels. Defaults to 16.
        img_size: Image size (H, W) that the position embedding is made for,
            in pixels. Defaults to 224.
        in_chans: Image channels. Defaults to 3.
        stem: 'linear' (one strided convolution) or 'conv' (LV-ViT: three
            convolutions before the patch projection). Defaults to 'linear'.
        stem_dim: Channels of a 'conv' stem. Defaults to 64, as LV-ViT has.
        class_token: Whether there is a [CLS] token. Defaults to True.
        dist_token: Whether there is a distillation token. Defaults to False.
        reg_tokens: Number of register tokens. Defaults to 0.
        pos_embed: 'all' tokens, 'patch' tokens only (DeiT-III, DINOv2 with
            registers) or 'none'. Defaults to 'all'.
        layer_scale: Whether residual branches are scaled by learned factors.
            Defaults to False.
        qkv_bias: Whether the Q, K, V projections have biases. Defaults to
            True.
        skip_scale: Divisor of the residual branches (LV-ViT: 2). Defaults to
            1.
        norm_eps: Epsilon of all LayerNorms. Defaults to 1e-6.
        token_merging: Where tokens are merged; a
            :class:`~mmvitcompress.tokens.specs.TokenMerging`, a dict of its
            arguments, or None.
        patch_slimming: Where patches leave; a
            :class:`~mmvitcompress.tokens.specs.PatchSlimming`, a dict of its
            arguments, or None.

    Raises:
        ConfigError: If a value is out of range, or values don't fit together.
    """

    family: ClassVar[str] = 'vit'

    embed_dim: int
    depth: int
    num_heads: int
    qk_dims: int | Sequence[int] | None = None
    v_dims: int | Sequence[int] | None = None
    mlp_dims: int | Sequence[int] | None = None
    head_dim: int | None = None
    patch_size: int = 16
    img_size: int | Grid = 224
    in_chans: int = 3
    stem: str = 'linear'
    stem_dim: int = 64
    class_token: bool = True
    dist_token: bool = False
    reg_tokens: int = 0
    pos_embed: str = 'all'
    layer_scale: bool = False
    qkv_bias: bool = True
    skip_scale: float = 1.0
    norm_eps: float = 1e-6
    token_merging: TokenMerging | None = None
    patch_slimming: PatchSlimming | None = None

    def __post_init__(self):
        for name in (
            'embed_dim',
            'depth',
            'num_heads',
            'patch_size',
            'in_chans',
            'stem_dim',
        ):
            check_positive(name, getattr(self, name))
        self._check_values()
        if self.head_dim is None:
            if self.embed_dim % self.num_heads:
                raise ConfigError(
                    f'embed_dim must be a multiple of num_heads '
                    f'({self.num_heads}) or head_dim be given, but got '
                    f'{self.embed_dim}'
                )
            self._set('head_dim', self.embed_dim // self.num_heads)
        check_positive('head_dim', self.head_dim)
        for name, default in (
            ('qk_dims', self.head_dim),
            ('v_dims', self.head_dim),
            ('mlp_dims', 4 * self.embed_dim),
        ):
            defaults = (default,) * self.depth
            self._set(name, per_block(name, getattr(self, name), defaults))
        self._set('img_size', pair('img_size', self.img_size))
        if self.stem == 'conv' and self.patch_size % 2:
            raise ConfigError(
                "stem='conv' halves the image first and needs an even "
                f'patch_size, but got {self.patch_size}'
            )
        check_image(self.img_size, self.patch_size)
        self._check_reductions()

    def _check_values(self) -> None:
        for name in ('class_token', 'dist_token', 'layer_scale', 'qkv_bias'):
            check_flag(name, getattr(self, name))
        for name in ('skip_scale', 'norm_eps'):
            check_positive_number(name, getattr(self, name))
        if type(self.reg_tokens) is not int or self.reg_tokens < 0:
            raise ConfigError(
                'reg_tokens must be a whole number of at least 0, but got '
                f'{self.reg_tokens!r}'
            )
        check_choice('stem', self.stem, ('linear', 'conv'))
        check_choice('pos_embed', self.pos_embed, ('all', 'patch', 'none'))

    def _check_reductions(self) -> None:
        merging = build_spec('token_merging', TokenMerging, self.token_merging)
        if merging is not None and not merging.layers:
            merging = None
        self._set('token_merging', merging)
        slimming = build_spec(
            'patch_slimming', PatchSlimming, self.patch_slimming
        )
        self._set('patch_slimming', slimming)
        if merging is not None:
            merging.validate(self.depth)
        if slimming is None:
            return
        slimming.validate(self.depth)
        if not self.num_prefix_tokens:
            raise ConfigError(
                'patch_slimming scores patches against a prefix token, but '
                'the arch has none: set class_token=True'
            )
        if merging is not None and merging.layers[-1] > slimming.base_layer:
            raise ConfigError(
                'token_merging.layers must not lie after '
                f'patch_slimming.base_layer ({slimming.base_layer}), since '
                'slimmed patches no longer form a grid, but got '
                f'{merging.layers[-1]}: merge earlier or slim later'
            )

    @property
    def num_features(self) -> int:
        """Channels of the last block's output."""
        return self.embed_dim

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patches: [CLS], distillation,
        registers."""
        return int(self.class_token) + int(self.dist_token) + self.reg_tokens

    @property
    def pos_grid(self) -> Grid:
        """Grid of the position embedding, in patches."""
        return self.grid(self.img_size)

    def grid(self, img_size: int | Grid) -> Grid:
        """Patch grid of an image; a last incomplete patch counts as one.

        Raises:
            ConfigError: If the image is smaller than one patch.
        """
        return patch_grid(img_size, self.patch_size)

    def mergeable(self, img_size: int | Grid) -> tuple[Grid, int]:
        """Where merges may stand: the grid that the first of them meets, and
        the number of blocks to choose from."""
        return self.grid(img_size), self.depth

    def tokens_per_block(self, img_size: int | Grid | None = None) -> list:
        """Patch tokens in the attention of each block (without prefix)."""
        grid = self.grid(img_size or self.img_size)
        counts, kept = [], None
        for layer in range(1, self.depth + 1):
            direction = self._direction_at(layer)
            if direction:
                grid = merged_grid(grid, direction)
            count = grid[0] * grid[1] if kept is None else kept
            counts.append(count)
            slimming = self.patch_slimming
            if slimming is not None and layer in slimming.layers:
                kept = slimming.kept(count)
        return counts

    def _direction_at(self, layer: int) -> str | None:
        if self.token_merging is None:
            return None
        return self.token_merging.direction_at(layer)

    # -- cost ---------------------------------------------------------------

    def macs(
        self,
        img_size: int | Grid | None = None,
        num_classes: int = 0,
        depth: int | None = None,
        final_norm: bool = True,
        convention: str = 'fvcore',
    ) -> int:
        """Multiply-accumulates for one image, in closed form.

        Args:
            img_size: Image size (H, W), in pixels. Defaults to that of the
                position embedding.
            num_classes: Outputs of a linear classifier on [CLS]; 0 for none.
                Defaults to 0.
            depth: How many blocks run. Defaults to all.
            final_norm: Whether the final LayerNorm runs. Defaults to True.
            convention: See :data:`CONVENTIONS`. Defaults to 'fvcore'.
        """
        check_choice('convention', convention, CONVENTIONS)
        per_norm = 5 * self.embed_dim if convention == 'fvcore' else 0
        depth = self.depth if depth is None else depth
        img_size = pair('img_size', img_size or self.img_size)
        counts = self.tokens_per_block(img_size)
        total = self._stem_macs(self.grid(img_size), convention)
        for layer in range(1, depth + 1):
            patches = counts[layer - 1]
            tokens = patches + self.num_prefix_tokens
            total += self._merge_macs(layer, patches)
            total += self._block_macs(layer, tokens) + 2 * per_norm * tokens
            slimming = self.patch_slimming
            if slimming is not None and layer == slimming.base_layer:
                total += per_norm * tokens
                total += (tokens + patches) * self.embed_dim**2
                total += patches * self.embed_dim
        if final_norm:
            # of all that the last block returns: patches that leave after it
            # still have their features
            total += per_norm * tokens
        heads = 1 + int(self.dist_token)
        return total + heads * num_classes * self.embed_dim

    def _stem_macs(self, grid: Grid, convention: str) -> int:
        patches = grid[0] * grid[1]
        if self.stem == 'linear':
            inputs = self.in_chans * self.patch_size**2
            return patches * inputs * self.embed_dim
        width = self.stem_dim
        pixels = patches * (self.patch_size // 2) ** 2
        convs = 49 * self.in_chans * width + 2 * 9 * width**2
        norms = 3 * 2 * width if convention == 'fvcore' else 0
        return pixels * (convs + norms + width * self.embed_dim)

    def _merge_macs(self, layer: int, patches: int) -> int:
        direction = self._direction_at(layer)
        if direction is None:
            return 0
        conv = 9 * self.embed_dim if self.token_merging.conv else 0
        return patches * (fan_in(direction) * self.embed_dim**2 + conv)

    def _block_macs(self, layer: int, tokens: int) -> int:
        qk, v, mlp = self.widths(layer)
        attended = self.num_heads * (qk + v)
        linear = self.embed_dim * (2 * attended + 2 * mlp)
        return tokens * linear + tokens**2 * attended

    def widths(self, layer: int) -> tuple[int, int, int]:
        """(Q/K, V, MLP) widths of block ``layer``, counted from 1."""
        i = layer - 1
        return self.qk_dims[i], self.v_dims[i], self.mlp_dims[i]

    def params(
        self,
        num_classes: int = 0,
        depth: int | None = None,
        final_norm: bool = True,
    ) -> int:
        """Parameters, in closed form; arguments as in :meth:`macs`."""
        dim = self.embed_dim
        depth = self.depth if depth is None else depth
        total = self._stem_params() + dim * self.num_prefix_tokens
        grid = self.pos_grid
        if self.pos_embed != 'none':
            total += dim * grid[0] * grid[1]
        if self.pos_embed == 'all':
            total += dim * self.num_prefix_tokens
        for layer in range(1, depth + 1):
            qk, v, mlp = self.widths(layer)
            attended = self.num_heads * (qk + v)
            total += dim * (2 * attended + 2 * mlp) + mlp + 2 * dim
            total += self.num_heads * (2 * qk + v) * self.qkv_bias
            total += 4 * dim + 2 * dim * self.layer_scale
            direction = self._direction_at(layer)
            if direction:
                total += fan_in(direction) * dim**2 + dim
                total += 10 * dim * self.token_merging.conv
            slimming = self.patch_slimming
            if slimming is not None and layer == slimming.base_layer:
                total += 2 * dim**2 + 2 * dim
        total += 2 * dim * final_norm
        heads = 1 + int(self.dist_token)
        return total + heads * num_classes * (dim + 1) * bool(num_classes)

    def _stem_params(self) -> int:
        if self.stem == 'linear':
            inputs = self.in_chans * self.patch_size**2
            return (inputs + 1) * self.embed_dim
        width = self.stem_dim
        convs = 49 * self.in_chans * width + 2 * 9 * width**2
        proj = (width * (self.patch_size // 2) ** 2 + 1) * self.embed_dim
        return convs + 3 * 2 * width + proj
