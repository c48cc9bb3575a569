"""``ViTArch``: the one description of a (compressed) Vision Transformer.

The backbone is built from it, the exporter writes it, the planner and the MAC
counter read it. It is plain data: JSON in, JSON out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from mmvitcompress.arch.base import (
    CONVENTIONS,
    DEEPEST,
    WIDTHS,
    Arch,
    takes_token_methods,
)
from mmvitcompress.arch.cost import vit_macs, vit_params
from mmvitcompress.arch.rotary import Rotary, check_turning
from mmvitcompress.arch.windows import Windows, check_windows, quarter_ends
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens import Counts, TokenSpec
from mmvitcompress.tokens.grids import Grid
from mmvitcompress.tokens.spec import count_tokens
from mmvitcompress.utils.checks import (
    check_choice,
    check_extent,
    check_flag,
    check_positive_number,
    pair,
    per_block,
)


@takes_token_methods
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
        qk_norm: Whether a LayerNorm over the channels of each head follows
            the Q and K projections (Dehghani et al., 2023). Defaults to
            False.
        act: Activation of an ungated MLP: 'gelu', 'gelu_tanh' (approximated
            by tanh, SigLIP) or 'quick_gelu' (by a sigmoid, OpenAI's CLIP).
            Defaults to 'gelu'.
        patch_bias: Whether the patch projection has a bias (CLIP: none).
            Defaults to True.
        pre_norm: Whether a LayerNorm stands before the blocks (CLIP).
            Defaults to False.
        skip_scale: Divisor of the residual branches (LV-ViT: 2). Defaults to
            1.
        norm_eps: Epsilon of all LayerNorms. Defaults to 1e-6.
        rope: Rotary positions of queries and keys, as
            :class:`~mmvitcompress.arch.rotary.Rotary` or its arguments.
            Defaults to None: there are none.
        mlp: 'mlp' (GELU between two linear layers) or 'swiglu': a hidden
            channel is one of values times the SiLU of its gate (DINOv3-S+,
            EVA-02, DINOv2-g). Defaults to 'mlp'.
        mlp_norm: Whether a LayerNorm follows the hidden channels (EVA-02).
            Defaults to False.
        attn_norm: Whether a LayerNorm follows the heads. Defaults to False.
        window_size: Edge, in tokens of a block's own grid, of the windows
            that patches attend in; prefix tokens stay global. Defaults to
            None: all tokens attend to all.
        global_blocks: Blocks that attend to all tokens in spite of
            ``window_size``, counted from 0. Defaults to the ends of the four
            quarters of the depth.
        reductions: Token methods; see
            :class:`~mmvitcompress.arch.base.Arch`. Defaults to none.

    Raises:
        ConfigError: If a value is out of range, or values don't fit together.
    """

    family: ClassVar[str] = 'vit'
    left_out: ClassVar[tuple[str, ...]] = (
        *('rope', 'mlp', 'mlp_norm', 'attn_norm'),
        *('qk_norm', 'act', 'patch_bias', 'pre_norm'),
    )

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
    qk_norm: bool = False
    act: str = 'gelu'
    patch_bias: bool = True
    pre_norm: bool = False
    skip_scale: float = 1.0
    norm_eps: float = 1e-6
    rope: Rotary | Mapping | None = None
    mlp: str = 'mlp'
    mlp_norm: bool = False
    attn_norm: bool = False
    window_size: int | None = None
    global_blocks: Sequence[int] | None = None
    reductions: tuple[TokenSpec, ...] = ()

    def __post_init__(self):
        self._make_plain()
        sizes = 'embed_dim num_heads patch_size in_chans stem_dim'
        for name in sizes.split():
            check_extent(name, getattr(self, name))
        check_extent('depth', self.depth, DEEPEST)
        self._check_values()
        self._set('img_size', pair('img_size', self.img_size))
        if self.head_dim is None and self.embed_dim % self.num_heads:
            raise ConfigError(
                f'embed_dim must be a multiple of num_heads '
                f'({self.num_heads}) or head_dim be given, but got '
                f'{self.embed_dim}'
            )
        for name, value in self._derived().items():
            if getattr(self, name) is None:
                self._set(name, value)
        check_extent('head_dim', self.head_dim)
        for name in WIDTHS:
            self._set(name, per_block(name, getattr(self, name), self.depth))
        self._set('rope', Rotary.of(self.rope))
        if self.rope is not None:
            check_turning(self.head_dim, self.qk_dims)
        if self.stem == 'conv' and self.patch_size % 2:
            raise ConfigError(
                "stem='conv' halves the image first and needs an even "
                f'patch_size, but got {self.patch_size}'
            )
        self.grid(self.img_size)  # raises if there is no patch
        self._settle_reductions()
        self._check_windows()

    def _derived(self) -> dict:
        head = self.embed_dim // self.num_heads
        attended = head if self.head_dim is None else self.head_dim
        windows = self.window_size is not None
        return dict(
            head_dim=head,
            qk_dims=(attended,) * self.depth,
            v_dims=(attended,) * self.depth,
            mlp_dims=(4 * self.embed_dim,) * self.depth,
            global_blocks=quarter_ends(self.depth) if windows else None,
        )

    def _check_values(self) -> None:
        for field in fields(self):
            if field.type is bool:
                check_flag(field.name, getattr(self, field.name))
        for name in ('skip_scale', 'norm_eps'):
            check_positive_number(name, getattr(self, name))
        check_extent('reg_tokens', self.reg_tokens, least=0)
        check_choice('stem', self.stem, ('linear', 'conv'))
        check_choice('act', self.act, ('gelu', 'gelu_tanh', 'quick_gelu'))
        check_choice('pos_embed', self.pos_embed, ('all', 'patch', 'none'))
        check_choice('mlp', self.mlp, ('mlp', 'swiglu'))

    def _check_windows(self) -> None:
        blocks = self.global_blocks
        if self.window_size is None and blocks is None:
            return
        last = self._last_gridded(self.reductions)
        check_windows(self.window_size, blocks, self.depth, last)
        self._set('global_blocks', tuple(blocks))

    @property
    def num_features(self) -> int:
        """Channels of the last block's output."""
        return self.embed_dim

    token_dim = num_features

    @property
    def token_depth(self) -> int:
        """Number of blocks that methods choose from."""
        return self.depth

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patches: [CLS], distillation,
        registers."""
        return int(self.class_token) + int(self.dist_token) + self.reg_tokens

    @property
    def hidden_rows(self) -> int:
        """Rows of an MLP's first layer for each hidden channel."""
        return 2 if self.mlp == 'swiglu' else 1

    @property
    def qk_unit(self) -> int:
        return 1 if self.rope is None else 2

    @property
    def kept_whole(self) -> tuple[str, ...]:
        norms = dict(
            qk_dims=self.qk_norm, v_dims=self.attn_norm, mlp_dims=self.mlp_norm
        )
        return tuple(name for name, there in norms.items() if there)

    @property
    def pos_grid(self) -> Grid:
        """Grid of the position embedding, in patches."""
        return self.grid(self.img_size)

    def mergeable(self, img_size: int | Grid) -> tuple[Grid, int]:
        """The grid that a first merge meets, and the blocks to choose from."""
        return self.grid(img_size), self.depth

    def counts(self, img_size: int | Grid | None = None) -> list[Counts]:
        """Patch tokens of each block, without prefix tokens."""
        grid = self.grid(img_size or self.img_size)
        return count_tokens(self.reductions, grid, self.depth)

    def windows(self, index: int, grid: Grid) -> Windows | None:
        """Windows of a block (counted from 0) on a grid; None if it is global.

        A side that is shorter than a window is one window; if both are, that
        is global attention.
        """
        if self.window_size is None or index in self.global_blocks:
            return None
        window = tuple(min(self.window_size, side) for side in grid)
        return None if window == grid else Windows(grid, window, (0, 0))

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
            img_size: Image size (H, W), in pixels. Defaults to the arch's.
            num_classes: Outputs of a linear classifier; 0 for none. Defaults
                to 0.
            depth: How many blocks run. Defaults to all.
            final_norm: Whether the final LayerNorm runs. Defaults to True.
            convention: See :data:`~mmvitcompress.arch.base.CONVENTIONS`.
                Defaults to 'fvcore'.
        """
        check_choice('convention', convention, CONVENTIONS)
        size = self.img_size if img_size is None else img_size
        depth = self.depth if depth is None else depth
        return vit_macs(self, size, num_classes, depth, final_norm, convention)

    def params(
        self,
        num_classes: int = 0,
        depth: int | None = None,
        final_norm: bool = True,
    ) -> int:
        """Parameters, in closed form; arguments as in :meth:`macs`."""
        depth = self.depth if depth is None else depth
        return vit_params(self, num_classes, depth, final_norm)
